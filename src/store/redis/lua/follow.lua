-- Changes after a number. Each entry of the stream holds the changes of one
-- call and is numbered by the latest of them.
--
-- KEYS  state, changes
-- ARGV  not after (µs), time given ('' in life), after, how many at most
local state, wall, refusal = open()
if not state then
  return refusal
end
local answer = heading(state, (advance(state, wall)))
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
