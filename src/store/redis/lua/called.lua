-- Finds steps that are parked and may go on: those that have waited longest where
-- the target is back, one at random where it may be tried.
--
-- KEYS  state; then for each target: its state, who is parked
-- ARGV  not after (µs), time given ('' in life), how many of each target at most;
--       then for each target the grid of its rate: width, capacity, whether there is a
--       gap; width 0 is no rate; and whether its breaker is forced closed
local state, wall, refusal = open()
if not state then
  return refusal
end
local now = advance(state, wall)
local answer = heading(state, now)
-- Mirrors of book.rs; spans in µs.
local AHEAD, CHOICE, FRESH, BEHIND, TARGETS = 1e6, 1024, 30e6, 250000, 64

local function has_room(key, lot)
  local width, capacity, gap = struct.unpack('<ddB', lot)
  if width == 0 then
    return true
  end
  local calendar = calendar_open(key, { width = width, capacity = capacity, gap = gap == 1 }, now - BEHIND)
  local from = calendar and calendar_room(calendar, now)
  return from and from <= now + AHEAD
end

local function add(members)
  for _, member in ipairs(members) do
    answer[#answer + 1] = member
  end
end

-- In turns, one who came just now and one who has waited longest.
local function in_turns(parked_key, most)
  local longest = redis.call('ZRANGE', parked_key, 0, most - 1)
  local since = text(math.max(now - FRESH, 0))
  local latest = redis.call('ZRANGE', parked_key, '+inf', since, 'BYSCORE', 'REV', 'LIMIT', 0, most)
  local called, known = {}, {}
  for at, eldest in ipairs(longest) do
    for _, member in ipairs({ latest[at] or eldest, eldest }) do
      if #called < most and not known[member] then
        called[#called + 1], known[member] = member, true
      end
    end
  end
  return called
end

for at = 1, TARGETS do
  local key, parked_key, lot = KEYS[2 * at], KEYS[2 * at + 1], ARGV[3 + at]
  if not key then
    break
  end
  local says, instant = BREAKER_ANY, 0
  if string.byte(lot, -1) == 0 then
    -- Nobody in particular asks: 0 is no step that has tried, and no host.
    says, instant = breaker_admits(breaker_of(redis.call('HGET', key, 'b')), 0, 0, false, now)
  end
  if says == BREAKER_PROBE then
    local choice = math.min(redis.call('ZCARD', parked_key), CHOICE)
    local drawn = choice > 0 and math.floor(now / 1000) % choice or 0
    add(redis.call('ZRANGE', parked_key, drawn, drawn))
  elseif says == BREAKER_ANY or (says == BREAKER_RAMP and instant <= now + AHEAD) then
    if has_room(key, lot) then
      add(in_turns(parked_key, tonumber(ARGV[3])))
    end
  end
end
return answer
