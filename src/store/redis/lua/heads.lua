-- Whose turn it is at a pool, as domain/limit/book.rs has it: as many as permits
-- are free, the longest waiting first.
--
-- KEYS  state, permits, line
-- ARGV  not after (µs), time given ('' in life), permits there are, how many at most
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
-- A permit is in force so long after its lease: BEHIND of limits.lua.
local leases = (grace(state, now) > 0 and state.before or now) - 250000
local live = redis.call('ZCOUNT', KEYS[2], '(' .. text(math.max(leases, 0)), '+inf')
local free = math.min(tonumber(ARGV[3]) - live, tonumber(ARGV[4]))
if free > 0 then
  push(answer, unpack(redis.call('ZRANGE', KEYS[3], '0', text(free - 1))))
end
return answer
