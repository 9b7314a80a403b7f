-- Ends the cooldown of a target, by an operator's order: the time until which
-- everybody waits, and where there is a breaker the ramp that was to begin then.
--
-- KEYS  state; of the target: its state
-- ARGV  not after (µs), time given ('' in life)
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
if state.paused > 0 then
  return { 'paused', pause(state) }
end
local cooldown, raw = tonumber(redis.call('HGET', KEYS[2], 'c') or 0), redis.call('HGET', KEYS[2], 'b')
local breaker = breaker_of(raw)
local was_cooled, was_lifted = cooldown > now, breaker_lift(breaker, now)

-- From here on nothing can fail.
if was_cooled then
  redis.call('HSET', KEYS[2], 'c', text(now))
end
if was_lifted then
  redis.call('HSET', KEYS[2], 'b', breaker_pack(breaker))
end
return answer
