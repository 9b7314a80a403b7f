-- What governs a namespace, and how many of its steps live.
--
-- KEYS  state, configuration
-- ARGV  not after (µs), time given ('' in life), born and revision that are known
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
answer[#answer + 1] = text(state.live)
if tonumber(ARGV[3]) == state.born and tonumber(ARGV[4]) == state.revision then
  return answer
end
for _, part in ipairs(redis.call('HGETALL', KEYS[2])) do
  answer[#answer + 1] = part
end
return answer
