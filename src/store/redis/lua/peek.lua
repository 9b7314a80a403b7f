-- Finds steps whose event may have come, and notes that somebody looked.
--
-- KEYS  state, events
-- ARGV  not after (µs), time given ('' in life), how many at most
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
if state.paused > 0 then
  -- Nothing may be done about what is due, and nobody is told that we looked:
  -- for workers, who are not heard, the pause is an outage.
  return answer
end
local found = redis.call('ZRANGE', KEYS[2], '-inf', text(now), 'BYSCORE', 'LIMIT', '0', ARGV[3])
for _, member in ipairs(found) do
  answer[#answer + 1] = member
end
state.swept = now
redis.call('SET', KEYS[1], pack_state(state))
return answer
