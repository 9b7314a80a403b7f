-- What is used of a target's limits.
--
-- KEYS  state; then of the target: its state, permits, line, who is parked
-- ARGV  not after (µs), time given ('' in life), the grid of its rate: width,
--       capacity, whether there is a gap; width 0 is no rate; the step that is
--       asked about, '' for none
--
-- Behind the heading: starts in the stretch of now, permits in force, who waits for
-- one, who is parked, the end of the cooldown, what the budget has seen, the
-- breaker, the first instant with room, and how many go before the step in line
-- and among those parked; '' is none.
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
-- A mirror of book.rs: a permit is in force so long after its lease.
local BEHIND = 250000

local width, capacity, gap = struct.unpack('<ddB', ARGV[3])
local used, room = 0, ''
if width > 0 then
  local grid = { width = width, capacity = capacity, gap = gap == 1 }
  local calendar = calendar_open(KEYS[2], grid, now - BEHIND)
  if calendar then
    used = calendar_load(calendar, now)
    local from = calendar_room(calendar, now)
    room = from and text(from) or ''
  end
end
-- How many stand before the step.
local function before(rank)
  return rank and text(rank) or ''
end

local leases = grace(state, now) > 0 and state.before or now
local since = text(math.max(leases - BEHIND, 0))
push(answer, text(used), text(redis.call('ZCOUNT', KEYS[3], '(' .. since, '+inf')),
  text(redis.call('ZCARD', KEYS[4])), text(redis.call('ZCARD', KEYS[5])),
  redis.call('HGET', KEYS[2], 'c') or '0', redis.call('HGET', KEYS[2], 'w') or '',
  redis.call('HGET', KEYS[2], 'b') or '', room,
  before(redis.call('ZRANK', KEYS[4], ARGV[4])), before(redis.call('ZRANK', KEYS[5], ARGV[4])))
return answer
