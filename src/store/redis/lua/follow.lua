-- Changes after a number. Each entry of the stream holds the changes of one
-- call and is numbered by the latest of them.
--
-- KEYS  state, changes
-- ARGV  not after (µs), time given ('' in life), after, how many at most
local wall = wall_time(ARGV[2])
local raw = redis.call('GET', KEYS[1])
if not raw then
  return { 'unknown', text(wall) }
end
local state = unpack_state(raw)
if state.format ~= FORMAT then
  return { 'format', text(state.format) }
end
local answer = heading(state, (advance(state, wall)))
answer[#answer + 1] = text(state.changes)
local function add(entry)
  answer[#answer + 1] = string.match(entry[1], '^%d+')
  answer[#answer + 1] = entry[2]
end
-- The oldest tells how far back the log reaches.
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', '1')) do
  add(entry)
end
local first = text(tonumber(ARGV[3]) + 1) .. '-0'
if tonumber(ARGV[3]) < state.changes then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[4])) do
    add(entry)
  end
end
return answer
