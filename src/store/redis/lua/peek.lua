-- Finds steps whose event may have come, and notes that somebody looked. Before
-- them stands how many they are, behind them the targets where steps are parked.
--
-- KEYS  state, events, states of targets where steps are parked
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
  answer[#answer + 1] = '0'
  return answer
end
-- More targets than this get their turn at another look.
local TARGETS = 64
local lots = redis.call('SRANDMEMBER', KEYS[3], TARGETS)
local found = redis.call('ZRANGE', KEYS[2], '-inf', text(now), 'BYSCORE', 'LIMIT', '0', ARGV[3])
answer[#answer + 1] = text(#found)
for _, member in ipairs(found) do
  answer[#answer + 1] = member
end
for _, lot in ipairs(lots) do
  answer[#answer + 1] = lot
end
state.swept = now
redis.call('SET', KEYS[1], pack_state(state))
return answer
