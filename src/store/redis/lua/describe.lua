-- What governs a namespace, and how much is in it.
--
-- KEYS  state, events, configuration
-- ARGV  not after (µs), time given ('' in life), born and revision that are known
local wall = wall_time(ARGV[2])
local raw = redis.call('GET', KEYS[1])
if not raw then
  return { 'unknown', text(wall) }
end
local state = unpack_state(raw)
if state.format ~= FORMAT then
  return { 'format', text(state.format) }
end
local now = advance(state, wall)
local answer = heading(state, now)
answer[#answer + 1] = text(state.live)
answer[#answer + 1] = redis.call('ZCARD', KEYS[2])
if tonumber(ARGV[3]) == state.born and tonumber(ARGV[4]) == state.revision then
  return answer
end
for _, part in ipairs(redis.call('HGETALL', KEYS[3])) do
  answer[#answer + 1] = part
end
return answer
