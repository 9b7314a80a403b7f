-- What targets answer and what is charged to them, as domain/limit/book.rs has
-- it; a property holds the two equal, answer by answer.
--
-- A target's state is a hash (its calendar; c, the end of its cooldown; w, what
-- its retry budget has seen: width of a stretch, then for each its number, first
-- attempts and costs; b, its breaker), a sorted set of permits by the end of their
-- leases, one of who stands in line by how long, and one of who is parked. The
-- keys of the states that a call is about stand behind those of its steps, each
-- state once, and behind them that of the set of states where steps are parked.
--
-- limits_asked(raw, from) reads one item, limits_admit(asks, at, leases, member)
-- answers it and charges it to what is kept until the end of the script;
-- limits_read is the last that reads, limits_write writes.
local limits_asked, limits_admit, limits_read, limits_write
-- The time of the call, told before the first item.
local limits_now
do
-- want, cost, lease until, since, from, another instant that is as good, promised,
-- latest, draw, counted, cooldown,
-- within which it is woken (0: it comes by itself), step, host, targets; for each:
-- flags, state, width, capacity, gap, grace of its promise, most permits, thousandths, floor, stretch, what a budget does, bits: whether it
-- bounds the step or is only given back to, whether a promise can be given back,
-- whether it is paced, whether there is a breaker, whether that has a say, and whether
-- it may pace starts; of the breaker: the mark of the episodes that are known, starts a second in
-- thousandths, what the end of an attempt says, and where it ran; until when an
-- operator holds it open, 0 where nobody does; when such an order ended, 0 where none
-- did just now, and the length of the ramp after it.
local ASKS, BOUND = '<BdddddddddddddB', '<BHddBdddddBBddBHddd'
local BOUND_BYTES = 105
local NOTHING, START, RESERVE, KEEP = 0, 1, 2, 3
local NOW, AT, TOO_LATE, IN_LINE, LATER, SPENT, PARKED, OTHER_HOST = 0, 1, 2, 3, 4, 5, 6, 7
-- Of a budget: it stops when spent; each retry costs it the same, in thousandths.
local STOPS, FLAT, COST = 1, 2, 1000
local RATE, COUNTS, POOL, BUDGET, TICKET, HELD, COOLED, PASSING = 1, 2, 4, 8, 16, 32, 64, 128
local BINDS, CURRENT, PACED, BREAKER, HAS_SAY, RAMPS = 1, 2, 4, 8, 16, 32
local FOUND_RATE, FOUND_PERMITS, FOUND_BUDGET, FOUND_COOLDOWN, FOUND_BREAKER, FOUND_RAMP, FOUND_HOST, FOUND_FORCED, FOUND_OBSERVED =
  0, 1, 2, 3, 4, 5, 6, 7, 8
-- Mirrors of book.rs, ask.rs and window.rs; spans in µs.
local ROUNDS, REVISIT, SPREAD = 64, 60e6, 10e6
local TURN, TURNS_MAX = 250e3, 40
local STRETCHES = 10
-- A plan may be so old, and starts count from when it was made.
local BEHIND = 250000
-- The state of a target that one run has for itself, or that nobody wrote by its
-- name, outlives every run, ms.
local KEPT_MS = 40 * 24 * 3600 * 1000
local TARGETS, TIES = 64, 64
-- Who is parked comes by itself after so long at the latest; the first few for the
-- next probes.
local PARKED_FOR, PROBERS, PROBE_EVERY = 30e6, 8, 2500e3
-- What is thought of a start; the worst counts.
local WELL, PROBE, ELSEWHERE, OUT = 0, 1, 2, 3

local floor, max, min = math.floor, math.max, math.min
local byte, sub = string.byte, string.sub
local states = {}
-- Where the keys of states begin.
local states_from = 6 + 2 * (#ARGV - 2)
-- Where the name of a state begins in its key: 'reprise:{n}:limit:' is so much
-- longer than 'reprise:{n}:state'.
local name_from = #KEYS[1] + 2

local function has(flags, flag)
  return floor(flags / flag) % 2 == 1
end

local function state_at(index)
  local state = states[index]
  if not state then
    local base = states_from + 4 * index
    state = {
      key = KEYS[base + 1], permits_key = KEYS[base + 2], line_key = KEYS[base + 3],
      parked_key = KEYS[base + 4],
      cooldown = tonumber(redis.call('HGET', KEYS[base + 1], 'c') or 0),
      -- What members had when the call began, and have by now; false is nothing.
      permits = {}, permits_before = {}, line = {}, line_before = {}, parked = {}, parked_before = {},
    }
    redis.call('ZCARD', state.permits_key)
    redis.call('ZCARD', state.line_key)
    state.parked_count = redis.call('ZCARD', state.parked_key)
    states[index] = state
  end
  return state
end

-- The calendar, as of before the oldest plan of this call.
local function calendar_of(bound)
  local state = bound.state
  if not state.calendar then
    local grid = { width = bound.width, capacity = bound.capacity, gap = bound.gap == 1 }
    state.calendar, state.grid = calendar_open(state.key, grid, limits_now - BEHIND), grid
    if not state.calendar then
      error('a calendar of another version')
    end
  end
  return state.calendar
end

local function before_of(known, key, member)
  local score = known[member]
  if score == nil then
    score = redis.call('ZSCORE', key, member)
    score = score and tonumber(score)
    known[member] = score
  end
  return score
end

local function permit_of(state, member)
  local own = state.permits[member]
  if own == nil then
    own = before_of(state.permits_before, state.permits_key, member)
  end
  return own
end

local function put_permit(state, member, till)
  before_of(state.permits_before, state.permits_key, member)
  state.permits[member] = till
end

local function put_place(state, member, since)
  before_of(state.line_before, state.line_key, member)
  state.line[member] = since
end

local function park(state, member, since)
  before_of(state.parked_before, state.parked_key, member)
  state.parked[member] = since
end

-- It stands nowhere, and may have a permit.
local function put_down(state, member, till)
  put_permit(state, member, till)
  put_place(state, member, false)
  if state.parked_count > 0 or next(state.parked) then
    park(state, member, false)
  end
end

local function breaker_at(state)
  if not state.breaker then
    state.breaker = breaker_of(redis.call('HGET', state.key, 'b'))
  end
  return state.breaker
end

-- Permits in force, but for that of `member`. One is until no plan can be carried
-- out any more that was made before its lease ended, and keeps it.
local function live(state, member, leases)
  leases = max(leases - BEHIND, 0)
  local count = redis.call('ZCOUNT', state.permits_key, '(' .. text(leases), '+inf')
  for other, till in pairs(state.permits) do
    local before = state.permits_before[other]
    count = count + (till and till > leases and 1 or 0) - (before and before > leases and 1 or 0)
  end
  local own = permit_of(state, member)
  return count - (own and own > leases and 1 or 0)
end

-- Whether one who waits since `since` comes before another.
local function comes_before(since, member, other_since, other)
  return since < other_since or (since == other_since and member < other)
end

-- How many stand in a line before `member`, as far as it matters: by its key, how
-- the call has changed it, and how that was before.
local function count_before(key, line, before_call, member, since, matters)
  local count = redis.call('ZCOUNT', key, '-inf', '(' .. text(since))
  local ties = redis.call('ZRANGE', key, text(since), text(since), 'BYSCORE', 'LIMIT', 0, TIES)
  for _, other in ipairs(ties) do
    count = count + (other < member and 1 or 0)
  end
  for other, place in pairs(line) do
    local before = before_call[other]
    if other ~= member then
      count = count + (place and comes_before(place, other, since, member) and 1 or 0)
    end
    count = count - (before and comes_before(before, other, since, member) and 1 or 0)
  end
  if line[member] == nil then
    local own = before_of(before_call, key, member)
    count = count - (own and comes_before(own, member, since, member) and 1 or 0)
  end
  return min(count, matters)
end

local function line_before(state, member, since, matters)
  return count_before(state.line_key, state.line, state.line_before, member, since, matters)
end

local function parked_before(state, member, since, matters)
  return count_before(state.parked_key, state.parked, state.parked_before, member, since, matters)
end

-- What a retry budget has seen.
local function window_of(state)
  if not state.window then
    local raw = redis.call('HGET', state.key, 'w') or ''
    local window = { width = 0, list = {} }
    if #raw >= 8 then
      window.width = struct.unpack('<d', raw)
    end
    for at = 9, #raw, 24 do
      local number, firsts, costs = struct.unpack('<ddd', raw, at)
      window.list[#window.list + 1] = { number = number, firsts = firsts, costs = costs }
    end
    state.window = window
  end
  return state.window
end

local function balance(window, bound, at)
  local firsts, spent = 0, 0
  local since = max(at - STRETCHES * bound.stretch, 0)
  for _, stretch in ipairs(window.list) do
    local begins = stretch.number * window.width
    if begins + window.width > since then
      spent = spent + stretch.costs
    end
    if window.width == bound.stretch and begins > since then
      firsts = firsts + stretch.firsts
    end
  end
  return spent, bound.ratio * firsts + bound.floor
end

local function stretch_of(window, number)
  for _, stretch in ipairs(window.list) do
    if stretch.number == number then
      return stretch
    end
  end
  local stretch = { number = number, firsts = 0, costs = 0 }
  window.list[#window.list + 1] = stretch
  return stretch
end

local function count_start(state, width, cost, at)
  local window = window_of(state)
  if window.width ~= width then
    local old, before = window.list, window.width
    window.list, window.width = {}, width
    for _, stretch in ipairs(old) do
      local last = (stretch.number + 1) * before - 1
      local into = stretch_of(window, floor(last / width))
      into.costs = into.costs + stretch.costs
    end
  end
  local number = floor(at / width)
  local kept = {}
  for _, stretch in ipairs(window.list) do
    if stretch.number + STRETCHES + 1 >= number then
      kept[#kept + 1] = stretch
    end
  end
  window.list = kept
  local stretch = stretch_of(window, number)
  if cost < 0 then
    stretch.firsts = stretch.firsts + 1
  else
    stretch.costs = stretch.costs + cost
  end
  state.counted = true
end

-- What is asked of a target, by its bytes: much of a call is asked of one target
-- in the same words.
local bounds_known = {}

local function unpack_bound(raw, place, from)
  local flags, index, width, capacity, gap, grace, most, ratio, least, stretch, spends, bits, mark, full,
    ended, ended_host, forced, freed, ramp = struct.unpack(BOUND, raw, from)
  local bound = {
    place = place, state = state_at(index), width = width, capacity = capacity, gap = gap, grace = grace,
    most = most, ratio = ratio, floor = least, stretch = stretch, mark = mark, full = full, ended = ended,
    ended_host = ended_host, forced = forced, freed = freed, ramp = ramp,
    stops = has(spends, STOPS), is_flat = has(spends, FLAT),
    flags = {
      rate = has(flags, RATE), counts = has(flags, COUNTS), pool = has(flags, POOL),
      budget = has(flags, BUDGET), ticket = has(flags, TICKET), held = has(flags, HELD),
      cooled = has(flags, COOLED),
    },
    bits = {
      binds = has(bits, BINDS), current = has(bits, CURRENT), paced = has(bits, PACED),
      breaker = has(bits, BREAKER), has_say = has(bits, HAS_SAY), ramps = has(bits, RAMPS),
    },
  }
  if has(flags, PASSING) then
    bound.state.passing = true
  end
  if bound.flags.rate then
    calendar_of(bound)
  end
  return bound
end

local function bound_of(raw, place, from)
  local known = bounds_known[place]
  if not known then
    known = {}
    bounds_known[place] = known
  end
  local bytes = sub(raw, from, from + BOUND_BYTES - 1)
  local bound = known[bytes]
  if not bound then
    bound = unpack_bound(raw, place, from)
    known[bytes] = bound
  end
  return bound
end

local function unpack_asks(raw, asked_from)
  local want, cost, lease_until, since, from, other, promised, latest, draw, counted, cool, woken,
    step, host, count, at = struct.unpack(ASKS, raw, asked_from)
  if count > TARGETS then
    error('too many targets')
  end
  local bounds = {}
  for place = 1, TARGETS do
    if place > count then
      break
    end
    bounds[place] = bound_of(raw, place - 1, at)
    at = at + BOUND_BYTES
  end
  return {
    want = want, cost = cost, lease_until = lease_until, since = since, from = from, other = other,
    promised = promised, latest = latest, draw = draw, counted = counted, cool = cool, woken = woken,
    step = step, host = host, bounds = bounds, findings = {}, open = {}, ramps = {},
    at = 0, leases = 0, member = '',
  }, at
end

local function find(asks, limit, bound, earliest, used, most)
  if limit == FOUND_BREAKER or limit == FOUND_FORCED then
    asks.open[bound.place] = true
  elseif limit == FOUND_RAMP then
    asks.ramps[bound.place] = true
  end
  asks.findings[#asks.findings + 1] = struct.pack('<BBddd', limit, bound.place, earliest, used, most)
end

-- Where neither a rate nor a ramp paces those who waited, they come spread over a
-- sixteenth of the time that they were kept away.
local function spread(asks, bound, cooldown)
  if bound.flags.rate or bound.bits.has_say then
    return cooldown
  end
  local width = min(floor((cooldown - asks.at) / 16), SPREAD)
  return cooldown + floor(width * asks.draw / 65536)
end

-- Until when the targets' own word has everybody wait.
local function cooled(asks)
  local till = 0
  for _, bound in ipairs(asks.bounds) do
    local cooldown = max(bound.state.cooldown, bound.flags.cooled and asks.cool or 0)
    if bound.bits.binds and cooldown > asks.at then
      local own = spread(asks, bound, cooldown)
      find(asks, FOUND_COOLDOWN, bound, own, 0, 0)
      till = max(till, own)
    end
  end
  return till
end

-- Whether a start now is one that was promised by then.
local function in_grace(asks, bound)
  return bound.flags.ticket and asks.at <= asks.promised + bound.grace
end

-- When who is parked comes again: who is woken when it is long overdue, the first
-- in line for the next probes, the others spread over a while.
local function parked_until(asks, before, next_probe)
  if asks.woken > 0 then
    return asks.at + asks.woken
  end
  if before < PROBERS then
    return max(next_probe, asks.at) + PROBE_EVERY * before
  end
  return asks.at + PARKED_FOR + floor(PARKED_FOR * asks.draw / 65536)
end

-- Parked at a target whose next probe may start at an instant.
local function parked_at(asks, bound, limit, next_probe)
  local before = parked_before(bound.state, asks.member, asks.since, PROBERS)
  local come = parked_until(asks, before, next_probe)
  find(asks, limit, bound, come, before, 0)
  return OUT, come
end

-- What a breaker that has a say has to say.
local function said(asks, bound)
  local says, instant = breaker_admits(breaker_at(bound.state), asks.step, asks.host, asks.want == START, asks.at)
  if says == BREAKER_OTHER_HOST then
    find(asks, FOUND_HOST, bound, instant, 0, 0)
    return ELSEWHERE, 0
  elseif says == BREAKER_PROBE then
    find(asks, FOUND_BREAKER, bound, asks.at, 0, 0)
    return asks.want == START and PROBE or OUT, asks.at
  elseif says == BREAKER_PARKED then
    return parked_at(asks, bound, FOUND_BREAKER, instant)
  end
  return WELL, 0
end

-- What one that only watches would have said.
local function watched(asks, bound)
  local says, instant = breaker_admits(breaker_at(bound.state), asks.step, asks.host, asks.want == START, asks.at)
  if says ~= BREAKER_ANY and says ~= BREAKER_PROBE and instant > asks.at then
    find(asks, FOUND_OBSERVED, bound, instant, 0, 0)
  end
  return WELL, 0
end

-- What breakers have to say: how it stands, and when to come again.
local function health(asks)
  local worst, till = WELL, 0
  for _, bound in ipairs(asks.bounds) do
    local how, come = WELL, 0
    if bound.forced > 0 then
      how, come = parked_at(asks, bound, FOUND_FORCED, bound.forced)
    elseif bound.bits.has_say then
      how, come = said(asks, bound)
    elseif bound.bits.breaker and not bound.bits.ramps then
      how, come = watched(asks, bound)
    end
    worst, till = max(worst, how), max(till, come)
  end
  return worst, till
end

-- Parked until an instant that is of use.
local function parked(asks, till)
  if asks.latest <= asks.at then
    return TOO_LATE, 0
  end
  return PARKED, min(till, asks.latest)
end

-- The earliest start that targets which are coming back admit.
local function paced(asks, from)
  local earliest = from
  for _, bound in ipairs(asks.bounds) do
    if bound.bits.ramps then
      local says, instant = breaker_admits(breaker_at(bound.state), asks.step, 0, false, asks.at)
      if says == BREAKER_RAMP and not (bound.bits.paced and in_grace(asks, bound)) then
        find(asks, FOUND_RAMP, bound, max(from, instant), 0, 0)
        earliest = max(earliest, instant)
      end
    end
  end
  return earliest
end

-- When to come again, where permits are short or others come first.
local function in_line(asks)
  local till
  for _, bound in ipairs(asks.bounds) do
    if bound.flags.pool then
      local used = live(bound.state, asks.member, asks.leases)
      local before = line_before(bound.state, asks.member, asks.since, TURNS_MAX * bound.most)
      local earliest = asks.at
      if used + before >= bound.most then
        local turns = floor(max(used + before - bound.most, 0) / bound.most) + 1
        earliest = asks.at + (asks.woken > 0 and asks.woken or TURN * min(turns, TURNS_MAX))
        till = max(till or 0, earliest)
      end
      find(asks, FOUND_PERMITS, bound, earliest, used, bound.most)
    end
  end
  return till
end

-- What a start costs a budget that costs others so much; a first attempt less than
-- nothing.
local function cost_at(bound, cost)
  return cost >= 0 and bound.is_flat and COST or cost
end

-- When to come again where a budget is spent, and whether it then stops.
local function spent(asks)
  local till, stops
  for _, bound in ipairs(asks.bounds) do
    if bound.flags.budget then
      local used, most = balance(window_of(bound.state), bound, limits_now)
      local earliest = asks.at
      if used + cost_at(bound, asks.cost) > most then
        earliest = asks.at + bound.stretch
        till, stops = max(till or 0, earliest), stops or bound.stops
      end
      find(asks, FOUND_BUDGET, bound, earliest, used, most)
    end
  end
  return till, stops
end

-- The first stretch of time from an instant on that all rates admit.
local function common(wanted, from)
  for _ = 1, ROUNDS do
    local before, till = from, math.huge
    for _, bound in ipairs(wanted) do
      local own, own_till = calendar_room(calendar_of(bound), from)
      if not own then
        return nil
      end
      from, till = max(from, own), min(till, own_till)
    end
    if from == before then
      return from, till
    end
  end
end

local function rates_found(asks, bounds, at)
  for _, bound in ipairs(bounds) do
    local used, most = calendar_load(calendar_of(bound), at)
    find(asks, FOUND_RATE, bound, at, used, most)
  end
end

local function in_time(asks, earliest, code, at)
  if earliest > asks.latest then
    return TOO_LATE, 0
  end
  return code, at
end

-- How much of what rates allow around an instant is taken; the most of any.
local function planned(asks, at)
  local share = 0
  for _, bound in ipairs(asks.bounds) do
    if bound.flags.counts then
      share = max(share, calendar_share(calendar_of(bound), at))
    end
  end
  return share
end

-- Of the instants that the step allows the one at which less is planned, but not
-- before `till`.
local function lighter(asks, till)
  local first, other = max(asks.from, till), max(asks.other, till)
  if first == other then
    return first
  end
  local share = planned(asks, first)
  return share > 0 and planned(asks, other) < share and other or first
end

-- The promise of a start from an instant on that breakers admit.
local function promised(asks, from)
  local wanted = {}
  for _, bound in ipairs(asks.bounds) do
    if bound.flags.counts then
      wanted[#wanted + 1] = bound
    end
  end
  local first, till = common(wanted, from)
  if not first then
    return in_time(asks, asks.at + REVISIT, LATER, asks.at + REVISIT)
  end
  local at = from
  if first ~= from then
    -- In two parts, so that no product is beyond 2⁵³.
    local width = till - first
    at = first + floor(width / 65536) * asks.draw + floor(width % 65536 * asks.draw / 65536)
  end
  rates_found(asks, wanted, at)
  return in_time(asks, first, AT, max(min(at, asks.latest), first))
end

-- A start now, if the rates allow it; else the promise of one.
local function started(asks, cool)
  local kept, wanted = {}, {}
  for _, bound in ipairs(asks.bounds) do
    if bound.flags.counts then
      local list = cool <= asks.at and in_grace(asks, bound) and kept or wanted
      list[#list + 1] = bound
    end
  end
  local earliest = paced(asks, max(asks.at, cool))
  local first = common(wanted, earliest)
  if not first then
    return in_time(asks, asks.at + REVISIT, LATER, asks.at + REVISIT)
  elseif first <= asks.at then
    rates_found(asks, wanted, asks.at)
    rates_found(asks, kept, asks.at)
    return NOW, 0
  end
  return promised(asks, earliest)
end

local function answer_to(asks)
  if asks.want == RESERVE then
    local till = cooled(asks)
    local how, come = health(asks)
    if how == OUT then
      return parked(asks, max(come, asks.from, till))
    end
    return promised(asks, paced(asks, lighter(asks, till)))
  elseif asks.want ~= START then
    return NOW, 0
  end
  local cool = cooled(asks)
  local how, come = health(asks)
  if how == OUT then
    return parked(asks, come)
  elseif how == ELSEWHERE then
    return OTHER_HOST, 0
  end
  local till = in_line(asks)
  if till then
    return IN_LINE, till
  end
  -- A probe costs nothing.
  if asks.cost >= 0 and how ~= PROBE then
    local stops
    till, stops = spent(asks)
    if till and stops then
      return SPENT, 0
    elseif till then
      return in_time(asks, till, LATER, till)
    end
  end
  return started(asks, cool)
end

-- Charges what follows from an answer.
local function charge(asks, code, at)
  local starts, reserves = asks.want == START, asks.want == RESERVE
  local is_probe = starts and code == NOW and next(asks.open) ~= nil
  for _, bound in ipairs(asks.bounds) do
    local flags, state = bound.flags, bound.state
    if bound.bits.breaker and bound.ended > 0 then
      breaker_ended(breaker_at(state), asks.step, bound.ended_host, bound.ended, asks.draw, bound.full,
        not bound.bits.has_say, asks.at)
      state.broke = true
    end
    if flags.cooled then
      if asks.cool > state.cooldown then
        state.cooldown, state.cool = asks.cool, true
      end
      if bound.bits.has_say then
        breaker_cool(breaker_at(state), asks.cool, bound.full, asks.at)
        state.broke = true
      end
    end
    if flags.rate then
      local is_used = code == NOW and starts and in_grace(asks, bound)
      if flags.ticket and bound.bits.current and not is_used then
        calendar_of(bound)
        calendar_give_back(state.calendar, state.grid, asks.promised)
      end
      if flags.counts and code == NOW and starts and not is_used then
        calendar_take(calendar_of(bound), asks.at)
      elseif flags.counts and code == AT and (starts or reserves) then
        calendar_take(calendar_of(bound), at)
      end
    end
    if is_probe and asks.open[bound.place] then
      breaker_probe(breaker_at(state), asks.step, asks.lease_until, asks.draw, asks.at)
      state.broke = true
    elseif asks.ramps[bound.place] and (code == NOW or code == AT) then
      breaker_pace(breaker_at(state))
      state.broke = true
    end
    local is_pool = flags.pool
    if asks.want == KEEP then
      if flags.held or is_pool then
        put_down(state, asks.member, asks.lease_until)
      end
    elseif starts and is_pool and code == NOW then
      put_down(state, asks.member, asks.lease_until)
    elseif code == PARKED and asks.open[bound.place] then
      put_down(state, asks.member, false)
      park(state, asks.member, asks.since)
    elseif starts and is_pool and code == IN_LINE then
      put_down(state, asks.member, false)
      put_place(state, asks.member, asks.since)
    elseif flags.held then
      put_down(state, asks.member, false)
    end
    -- To a budget a probe is neither a retry nor a first attempt.
    local counted = starts and code == NOW and asks.cost or asks.counted
    if flags.budget and counted > -2 and not is_probe then
      count_start(state, bound.stretch, cost_at(bound, counted), limits_now)
    end
  end
end

-- The answer to what is asked: its code, its instant, and what the limits had to say.
function limits_admit(asks, at, leases, member)
  asks.at, asks.leases, asks.member = at, leases, member
  local code, instant = answer_to(asks)
  charge(asks, code, instant)
  return code, instant, struct.pack('<Bd', code, instant) .. table.concat(asks.findings)
end

-- What is asked at `from`, where what follows begins, and what the targets' episodes
-- are where one is not what was known; nil else.
function limits_asked(raw, from)
  local asks, after = unpack_asks(raw, from)
  local told, is_other = {}, false
  for _, bound in ipairs(asks.bounds) do
    if bound.bits.ramps then
      local breaker, only_watches = breaker_at(bound.state), not bound.bits.has_say
      if bound.freed > 0 and breaker_free(breaker, bound.freed, bound.ramp, only_watches, bound.full) then
        bound.state.broke = true
      end
      is_other = is_other or breaker.mark ~= bound.mark
      told[#told + 1] = struct.pack('<BdB', bound.place, breaker.mark, #breaker.episodes)
      for _, known in ipairs(breaker.episodes) do
        told[#told + 1] = struct.pack('<dd', known.from, known.till)
      end
    end
  end
  return asks, after, is_other and table.concat(told) or nil
end

local function pack_window(window)
  local parts = { struct.pack('<d', window.width) }
  for _, stretch in ipairs(window.list) do
    parts[#parts + 1] = struct.pack('<ddd', stretch.number, stretch.firsts, stretch.costs)
  end
  return table.concat(parts)
end

-- Scores and members that are added, and members that go.
local function changes_of(changed, before)
  local added, gone = {}, {}
  for member, score in pairs(changed) do
    if score and score ~= before[member] then
      added[#added + 1] = score
      added[#added + 1] = member
    elseif not score and before[member] then
      gone[#gone + 1] = member
    end
  end
  return added, gone
end

-- What is to be written, in lists. The last that reads.
function limits_read()
  redis.call('SCARD', KEYS[#KEYS])
  for _, state in pairs(states) do
    state.sets, state.dels = {}, {}
    if state.calendar then
      state.sets, state.dels = calendar_writes(state.calendar)
    end
    if state.cool then
      push(state.sets, 'c', text(state.cooldown))
    end
    if state.broke then
      push(state.sets, 'b', breaker_pack(state.breaker))
    end
    if state.counted then
      push(state.sets, 'w', pack_window(state.window))
    end
    state.permitted, state.permits_gone = changes_of(state.permits, state.permits_before)
    state.lined, state.line_gone = changes_of(state.line, state.line_before)
    state.parkers, state.parked_gone = changes_of(state.parked, state.parked_before)
    for member, since in pairs(state.parked) do
      local before = state.parked_before[member]
      state.parked_count = state.parked_count + (since and 1 or 0) - (before and 1 or 0)
    end
  end
end

function limits_write()
  for _, state in pairs(states) do
    if #state.sets > 0 then
      redis.call('HSET', state.key, unpack(state.sets))
      if state.passing then
        redis.call('PEXPIRE', state.key, KEPT_MS)
      end
    end
    if #state.dels > 0 then
      redis.call('HDEL', state.key, unpack(state.dels))
    end
    if #state.permitted > 0 then
      redis.call('ZADD', state.permits_key, unpack(state.permitted))
    end
    if #state.permits_gone > 0 then
      redis.call('ZREM', state.permits_key, unpack(state.permits_gone))
    end
    if #state.lined > 0 then
      redis.call('ZADD', state.line_key, unpack(state.lined))
    end
    if #state.line_gone > 0 then
      redis.call('ZREM', state.line_key, unpack(state.line_gone))
    end
    if #state.parked_gone > 0 then
      redis.call('ZREM', state.parked_key, unpack(state.parked_gone))
      if state.parked_count == 0 then
        redis.call('SREM', KEYS[#KEYS], sub(state.key, name_from))
      end
    end
    if #state.parkers > 0 then
      redis.call('ZADD', state.parked_key, unpack(state.parkers))
      redis.call('SADD', KEYS[#KEYS], sub(state.key, name_from))
    end
  end
end
end
