-- What targets answer and what is charged to them, as domain/limit/book.rs has
-- it; a property holds the two equal, answer by answer.
--
-- A target's state is a hash (its calendar; c, the end of its cooldown; w, what
-- its retry budget has seen: width of a stretch, then for each its number, first
-- attempts and costs), a sorted set of permits by the end of their leases, and
-- one of who stands in line by how long. The keys of the states that a call is
-- about stand behind those of its steps, each state once.
--
-- limits_admit(asks, from, at, leases, member) answers one item and charges it to
-- what is kept until the end of the script; limits_read is the last that reads,
-- limits_write writes.
local limits_admit, limits_read, limits_write
-- The time of the call, told before the first item.
local limits_now
do
-- want, cost, lease until, since, from, promised, latest, draw, counted, cooldown,
-- within which it is woken (0: it comes by itself), targets; for each: flags, state, width, capacity, gap, grace of its promise, most permits,
-- thousandths, floor, stretch, whether a spent budget stops, bits: whether it
-- bounds the step or is only given back to, whether a promise can be given back.
local ASKS, BOUND = '<BddddddddddB', '<BHddBdddddBB'
local NOTHING, START, RESERVE, KEEP = 0, 1, 2, 3
local NOW, AT, TOO_LATE, IN_LINE, LATER, SPENT = 0, 1, 2, 3, 4, 5
local RATE, COUNTS, POOL, BUDGET, TICKET, HELD, COOLED, PASSING = 1, 2, 4, 8, 16, 32, 64, 128
local BINDS, CURRENT = 1, 2
local FOUND_RATE, FOUND_PERMITS, FOUND_BUDGET, FOUND_COOLDOWN = 0, 1, 2, 3
-- Mirrors of book.rs, ask.rs and window.rs; spans in µs.
local ROUNDS, REVISIT = 64, 60e6
local TURN, TURNS_MAX = 250e3, 40
local STRETCHES = 10
-- A plan may be so old, and starts count from when it was made.
local BEHIND = 250000
-- The state of a target that one run has for itself, or that nobody wrote by its
-- name, outlives every run, ms.
local KEPT_MS = 40 * 24 * 3600 * 1000
local TARGETS, TIES = 64, 64

local floor, max, min = math.floor, math.max, math.min
local byte, sub = string.byte, string.sub
local states = {}
-- Where the keys of states begin.
local states_from = 6 + 2 * (#ARGV - 2)

local function has(flags, flag)
  return floor(flags / flag) % 2 == 1
end

local function state_at(index)
  local state = states[index]
  if not state then
    local base = states_from + 3 * index
    state = {
      key = KEYS[base + 1], permits_key = KEYS[base + 2], line_key = KEYS[base + 3],
      cooldown = tonumber(redis.call('HGET', KEYS[base + 1], 'c') or 0),
      -- What members had when the call began, and have by now; false is nothing.
      permits = {}, permits_before = {}, line = {}, line_before = {},
    }
    redis.call('ZCARD', state.permits_key)
    redis.call('ZCARD', state.line_key)
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

-- How many stand in line before `member`, as far as it matters.
local function line_before(state, member, since, matters)
  local count = redis.call('ZCOUNT', state.line_key, '-inf', '(' .. text(since))
  local ties = redis.call('ZRANGE', state.line_key, text(since), text(since), 'BYSCORE', 'LIMIT', 0, TIES)
  for _, other in ipairs(ties) do
    count = count + (other < member and 1 or 0)
  end
  for other, place in pairs(state.line) do
    local before = state.line_before[other]
    if other ~= member then
      count = count + (place and comes_before(place, other, since, member) and 1 or 0)
    end
    count = count - (before and comes_before(before, other, since, member) and 1 or 0)
  end
  if state.line[member] == nil then
    local own = before_of(state.line_before, state.line_key, member)
    count = count - (own and comes_before(own, member, since, member) and 1 or 0)
  end
  return min(count, matters)
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

local function unpack_asks(raw, from)
  local asks, count = { bounds = {} }, nil
  asks.want, asks.cost, asks.lease_until, asks.since, asks.from, asks.promised, asks.latest,
    asks.draw, asks.counted, asks.cool, asks.woken, count, from = struct.unpack(ASKS, raw, from)
  if count > TARGETS then
    error('too many targets')
  end
  for at = 1, TARGETS do
    if at > count then
      break
    end
    local bound, index = { place = at - 1 }, nil
    bound.flags, index, bound.width, bound.capacity, bound.gap, bound.grace, bound.most,
      bound.ratio, bound.floor, bound.stretch, bound.stops, bound.bits, from = struct.unpack(BOUND, raw, from)
    bound.state = state_at(index)
    if has(bound.flags, PASSING) then
      bound.state.passing = true
    end
    if has(bound.flags, RATE) then
      calendar_of(bound)
    end
    asks.bounds[at] = bound
  end
  return asks, from
end

local function find(asks, limit, bound, earliest, used, most)
  asks.findings[#asks.findings + 1] = struct.pack('<BBddd', limit, bound.place, earliest, used, most)
end

-- Until when the targets' own word has everybody wait.
local function cooled(asks)
  local till = 0
  for _, bound in ipairs(asks.bounds) do
    local cooldown = max(bound.state.cooldown, has(bound.flags, COOLED) and asks.cool or 0)
    if has(bound.bits, BINDS) and cooldown > asks.at then
      find(asks, FOUND_COOLDOWN, bound, cooldown, 0, 0)
      till = max(till, cooldown)
    end
  end
  return till
end

-- When to come again, where permits are short or others come first.
local function in_line(asks)
  local till
  for _, bound in ipairs(asks.bounds) do
    if has(bound.flags, POOL) then
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

-- When to come again where a budget is spent, and whether it then stops.
local function spent(asks)
  local till, stops
  for _, bound in ipairs(asks.bounds) do
    if has(bound.flags, BUDGET) then
      local used, most = balance(window_of(bound.state), bound, limits_now)
      local earliest = asks.at
      if used + asks.cost > most then
        earliest = asks.at + bound.stretch
        till, stops = max(till or 0, earliest), stops or bound.stops == 1
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

-- The promise of a start from an instant on.
local function reserved(asks, from)
  local wanted = {}
  for _, bound in ipairs(asks.bounds) do
    if has(bound.flags, COUNTS) then
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

local function kept_promise(asks, bound)
  return has(bound.flags, TICKET) and asks.at <= asks.promised + bound.grace
end

-- A start now, if the rates allow it; else the promise of one.
local function started(asks, cool)
  local kept, wanted = {}, {}
  for _, bound in ipairs(asks.bounds) do
    if has(bound.flags, COUNTS) then
      local list = cool <= asks.at and kept_promise(asks, bound) and kept or wanted
      list[#list + 1] = bound
    end
  end
  local first = common(wanted, max(asks.at, cool))
  if not first then
    return in_time(asks, asks.at + REVISIT, LATER, asks.at + REVISIT)
  elseif first <= asks.at then
    rates_found(asks, wanted, asks.at)
    rates_found(asks, kept, asks.at)
    return NOW, 0
  end
  return reserved(asks, max(asks.at, cool))
end

local function answer_to(asks)
  if asks.want == RESERVE then
    return reserved(asks, max(asks.from, cooled(asks)))
  elseif asks.want ~= START then
    return NOW, 0
  end
  local cool = cooled(asks)
  local till = in_line(asks)
  if till then
    return IN_LINE, till
  end
  if asks.cost >= 0 then
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
  for _, bound in ipairs(asks.bounds) do
    local flags, state = bound.flags, bound.state
    if has(flags, COOLED) and asks.cool > state.cooldown then
      state.cooldown, state.cool = asks.cool, true
    end
    if has(flags, RATE) then
      local is_used = code == NOW and starts and kept_promise(asks, bound)
      if has(flags, TICKET) and has(bound.bits, CURRENT) and not is_used then
        calendar_of(bound)
        calendar_give_back(state.calendar, state.grid, asks.promised)
      end
      if has(flags, COUNTS) and code == NOW and starts and not is_used then
        calendar_take(calendar_of(bound), asks.at)
      elseif has(flags, COUNTS) and code == AT and (starts or reserves) then
        calendar_take(calendar_of(bound), at)
      end
    end
    local is_pool = has(flags, POOL)
    if asks.want == KEEP then
      if has(flags, HELD) or is_pool then
        put_permit(state, asks.member, asks.lease_until)
        put_place(state, asks.member, false)
      end
    elseif starts and is_pool and code == NOW then
      put_permit(state, asks.member, asks.lease_until)
      put_place(state, asks.member, false)
    elseif starts and is_pool and code == IN_LINE then
      put_permit(state, asks.member, false)
      put_place(state, asks.member, asks.since)
    elseif has(flags, HELD) then
      put_permit(state, asks.member, false)
      put_place(state, asks.member, false)
    end
    if has(flags, BUDGET) and starts and code == NOW then
      count_start(state, bound.stretch, asks.cost, limits_now)
    elseif has(flags, BUDGET) and asks.counted > -2 and not (starts and code == NOW) then
      count_start(state, bound.stretch, asks.counted, limits_now)
    end
  end
end

-- The answer to what stands at `from`: its code, its instant, what the limits had
-- to say, and where what follows begins.
function limits_admit(raw, from, at, leases, member)
  local asks, after = unpack_asks(raw, from)
  asks.at, asks.leases, asks.member, asks.findings = at, leases, member, {}
  local code, instant = answer_to(asks)
  charge(asks, code, instant)
  return code, instant, struct.pack('<Bd', code, instant) .. table.concat(asks.findings), after
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
  for _, state in pairs(states) do
    state.sets, state.dels = {}, {}
    if state.calendar then
      state.sets, state.dels = calendar_writes(state.calendar)
    end
    if state.cool then
      push(state.sets, 'c', text(state.cooldown))
    end
    if state.counted then
      push(state.sets, 'w', pack_window(state.window))
    end
    state.permitted, state.permits_gone = changes_of(state.permits, state.permits_before)
    state.lined, state.line_gone = changes_of(state.line, state.line_before)
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
  end
end
end
