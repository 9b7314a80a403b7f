-- A target's breaker, as domain/limit/breaker.rs has it; a property holds the two
-- equal, byte for byte. It stands in the field b of the target's hash; the
-- outcomes at its end stay packed until a failure is looked at.
--
-- breaker_of(raw) reads one, breaker_pack(breaker) writes it.
-- breaker_admits(breaker, step, host, is_start, at) says what it says of a start,
-- and the instant of that; breaker_probe, breaker_cool, breaker_lift,
-- breaker_free, breaker_pace and breaker_ended change it.
local breaker_of, breaker_pack, breaker_admits, breaker_probe, breaker_cool, breaker_lift, breaker_free, breaker_pace, breaker_ended
local BREAKER_ANY, BREAKER_PROBE, BREAKER_PARKED, BREAKER_OTHER_HOST, BREAKER_RAMP = 0, 1, 2, 3, 4
do
-- Mirrors of breaker.rs; spans in µs, or as they are named.
local OUTCOMES, SEEN_MS = 64, 60000
local EVIDENCE, EVIDENCE_LEFT = 20, 10
local IN_A_ROW, IN_A_ROW_LEFT, HOSTS, STEPS = 20, 10, 2, 3
local PROBE_FIRST, PROBE_LAST, PROBES, PROBE_PATIENCE = 500000, 2500000, 3, 30000000
local OPENED_BEFORE = 625000
local TRIED = 32
local RAMP_LEAST, RAMP_MOST, DOUBLINGS, RELAPSE = 1000000, 10000000, 3, 30000000
local EPISODES = 4
local EJECT, EJECT_OTHERS, EJECTED, EJECTED_MAX = 5, 10, 30000000, 8
local PACE_LEAST, PACE_MOST = 10000, 1000000
local SERVED, FAILED, NOTHING = 1, 2, 3
local CLOSED, OPEN, RAMP = 0, 1, 2
local HEAD, SEEN, SEEN_BYTES = '<BI4Bddddd', '<I6HHB', 11
-- Longest list of a breaker.
local LISTED = 255

local floor, ceil, max, min, sqrt = math.floor, math.ceil, math.max, math.min, math.sqrt
local byte, sub, pack, unpack_ = string.byte, string.sub, struct.pack, struct.unpack

local function read_list(raw, from, read)
  local list, count = {}, byte(raw, from)
  from = from + 1
  for at = 1, LISTED do
    if at > count then
      break
    end
    list[at], from = read(raw, from)
  end
  return list, from
end

local function read_probe(raw, from)
  local step, till, after = unpack_('<I4d', raw, from)
  return { step = step, till = till }, after
end

local function read_step(raw, from)
  return unpack_('<I4', raw, from)
end

local function read_episode(raw, from)
  local first, till, after = unpack_('<dd', raw, from)
  return { from = first, till = till }, after
end

local function read_ejected(raw, from)
  local host, till, after = unpack_('<Hd', raw, from)
  return { host = host, till = till }, after
end

function breaker_of(raw)
  local breaker = { phase = CLOSED, mark = 0, relapses = 0, pace = 0, probes = {}, tried = {},
    episodes = {}, ejected = {}, outcomes = '' }
  if not raw or raw == '' then
    return breaker
  end
  local a, b, c, d, from
  breaker.phase, breaker.mark, breaker.relapses, breaker.pace, a, b, c, d, from = unpack_(HEAD, raw)
  if breaker.phase == OPEN then
    breaker.wait, breaker.next = a, b
  elseif breaker.phase == RAMP then
    breaker.since, breaker.length, breaker.full, breaker.started = a, b, c, d
  end
  breaker.probes, from = read_list(raw, from, read_probe)
  breaker.tried, from = read_list(raw, from, read_step)
  breaker.episodes, from = read_list(raw, from, read_episode)
  breaker.ejected, from = read_list(raw, from, read_ejected)
  breaker.outcomes = sub(raw, from)
  return breaker
end

local function write_list(parts, list, write)
  parts[#parts + 1] = string.char(#list)
  for _, item in ipairs(list) do
    parts[#parts + 1] = write(item)
  end
end

function breaker_pack(breaker)
  local a, b, c, d = 0, 0, 0, 0
  if breaker.phase == OPEN then
    a, b = breaker.wait, breaker.next
  elseif breaker.phase == RAMP then
    a, b, c, d = breaker.since, breaker.length, breaker.full, breaker.started
  end
  local parts = { pack(HEAD, breaker.phase, breaker.mark, breaker.relapses, breaker.pace, a, b, c, d) }
  write_list(parts, breaker.probes, function(probe) return pack('<I4d', probe.step, probe.till) end)
  write_list(parts, breaker.tried, function(step) return pack('<I4', step) end)
  write_list(parts, breaker.episodes, function(known) return pack('<dd', known.from, known.till) end)
  write_list(parts, breaker.ejected, function(known) return pack('<Hd', known.host, known.till) end)
  parts[#parts + 1] = breaker.outcomes
  return table.concat(parts)
end

-- When, after its begin, a ramp admits the start that follows `started` others.
local function ramped(breaker)
  local long = breaker.length
  local due = 0.01 + 1.8e9 * breaker.started / (breaker.full * long)
  return min(max(ceil(long / 0.9 * (sqrt(due) - 0.1)), 0), long)
end

local function has_tried(breaker, step)
  for _, known in ipairs(breaker.tried) do
    if known == step then
      return true
    end
  end
  return false
end

function breaker_admits(breaker, step, host, is_start, at)
  if is_start and host ~= 0 then
    for _, known in ipairs(breaker.ejected) do
      if known.host == host and at < known.till then
        return BREAKER_OTHER_HOST, known.till
      end
    end
  end
  if breaker.phase == OPEN then
    local running = 0
    for _, probe in ipairs(breaker.probes) do
      running = running + (at < probe.till and 1 or 0)
    end
    if breaker.next <= at and running < PROBES and not has_tried(breaker, step) then
      return BREAKER_PROBE, at
    end
    return BREAKER_PARKED, breaker.next
  elseif breaker.phase == RAMP and at < breaker.since + breaker.length then
    if at < breaker.since then
      return BREAKER_PARKED, breaker.since
    end
    return BREAKER_RAMP, breaker.since + ramped(breaker)
  end
  return BREAKER_ANY, 0
end

-- Somewhere within a quarter of a wait.
local function drawn(wait, draw)
  return floor(wait * (49152 + floor(draw / 2)) / 65536)
end

local function kept(list, is_kept)
  local left = {}
  for _, item in ipairs(list) do
    if is_kept(item) then
      left[#left + 1] = item
    end
  end
  return left
end

function breaker_probe(breaker, step, lease_until, draw, at)
  if breaker.phase ~= OPEN then
    return
  end
  breaker.probes = kept(breaker.probes, function(probe) return at < probe.till and probe.step ~= step end)
  breaker.probes[#breaker.probes + 1] = { step = step, till = min(lease_until, at + PROBE_PATIENCE) }
  breaker.tried[#breaker.tried + 1] = step
  if #breaker.tried > TRIED then
    table.remove(breaker.tried, 1)
  end
  breaker.next = at + drawn(breaker.wait, draw)
  breaker.wait = min(floor(breaker.wait * 3 / 2), PROBE_LAST)
end

-- The target has asked not to be called until an instant: nothing starts, and then
-- its load grows on a ramp.
function breaker_cool(breaker, till, full, at)
  if breaker.phase == OPEN or (breaker.phase == RAMP and till <= breaker.since) then
    return
  end
  breaker.phase, breaker.since = RAMP, till
  breaker.length = min(max(floor(max(till - at, 0) / 2), RAMP_LEAST), RAMP_MOST)
  breaker.full, breaker.started = full == 0 and max(breaker.pace, PACE_LEAST) or full, 0
  breaker.mark = breaker.mark + 1
end

-- A ramp that was to begin later begins now. Whether one was.
function breaker_lift(breaker, at)
  local is_later = breaker.phase == RAMP and breaker.since > at
  if is_later then
    breaker.since = at
  end
  return is_later
end

local function end_episode(breaker, till)
  local latest = breaker.episodes[#breaker.episodes]
  if latest then
    latest.till = till
  end
  breaker.probes, breaker.tried = {}, {}
end

-- An order that held it open has ended: a ramp begins, once; where it only watches also
-- if it is open itself, unless it opened since then. Whether one did with this.
function breaker_free(breaker, at, ramp, only_watches, full)
  local is_open = breaker.phase == OPEN
  if is_open and not (only_watches and breaker.next <= at + OPENED_BEFORE) then
    return false
  elseif breaker.phase == RAMP and at <= breaker.since then
    return false
  elseif is_open then
    end_episode(breaker, at + ramp)
  end
  breaker.phase, breaker.since, breaker.length = RAMP, at, ramp
  breaker.full, breaker.started = full == 0 and max(breaker.pace, PACE_LEAST) or full, 0
  breaker.mark = breaker.mark + 1
  return true
end

function breaker_pace(breaker)
  if breaker.phase == RAMP then
    breaker.started = breaker.started + 1
  end
end

-- The outcomes that are not too old, the latest last.
local function recent(breaker, at_ms)
  local seen, raw, count = {}, breaker.outcomes, 0
  for place = 1, OUTCOMES do
    local from = (place - 1) * SEEN_BYTES + 1
    if from > #raw then
      break
    end
    local seen_ms, host, step, failed = unpack_(SEEN, raw, from)
    if at_ms <= seen_ms + SEEN_MS then
      count = count + 1
      seen[count] = { at_ms = seen_ms, host = host, step = step, failed = failed == 1 }
    end
  end
  return seen
end

-- Nine of ten failed, or the last so many in a row; without a host where one is given.
local function holds(seen, enough_in_a_row, without)
  local count, failures, in_a_row = 0, 0, 0
  for _, one in ipairs(seen) do
    if one.host ~= without then
      count = count + 1
      failures = failures + (one.failed and 1 or 0)
      in_a_row = one.failed and in_a_row + 1 or 0
    end
  end
  return failures * 10 >= count * 9 or in_a_row >= enough_in_a_row, count
end

-- Whether nothing but a dead target explains the outcomes.
local function is_dead(seen, enough_in_a_row)
  if #seen < EVIDENCE or not holds(seen, enough_in_a_row) then
    return false
  end
  local hosts, failures = {}, {}
  for _, one in ipairs(seen) do
    if not failures[one.host] then
      hosts[#hosts + 1], failures[one.host] = one.host, 0
    end
    failures[one.host] = failures[one.host] + (one.failed and 1 or 0)
  end
  if #hosts < HOSTS then
    return false
  end
  local worst = hosts[1]
  for _, host in ipairs(hosts) do
    if failures[host] > failures[worst] then
      worst = host
    end
  end
  local known, steps = {}, 0
  for _, one in ipairs(seen) do
    if one.failed and one.host ~= worst and not known[one.step] then
      known[one.step], steps = true, steps + 1
    end
  end
  local rest_holds, rest = holds(seen, IN_A_ROW_LEFT, worst)
  return rest >= EVIDENCE_LEFT and steps >= STEPS and rest_holds
end

-- Whether a host fails in a row while others do not.
local function is_alone(seen, host)
  local own, others, served = 0, 0, 0
  for _, one in ipairs(seen) do
    if one.host == host then
      own = one.failed and own + 1 or 0
    else
      others = others + 1
      served = served + (one.failed and 0 or 1)
    end
  end
  return host ~= 0 and own >= EJECT and others >= EJECT_OTHERS and served * 2 >= others
end

local function begin_episode(breaker, from)
  breaker.episodes[#breaker.episodes + 1] = { from = from, till = 0 }
  if #breaker.episodes > EPISODES then
    table.remove(breaker.episodes, 1)
  end
end

-- Whether it was dead just before: it has closed, and a failure would be a relapse.
local function is_weak(breaker, at)
  return breaker.phase == RAMP and at <= breaker.since + breaker.length + max(RELAPSE, breaker.length)
end

local function open_up(breaker, seen, draw, at)
  local first = 0
  for _, one in ipairs(seen) do
    if one.failed then
      first = one.at_ms * 1000
      break
    end
  end
  local lasted = max(at - seen[1].at_ms * 1000, 1)
  breaker.pace = min(max(floor(#seen * 1e9 / lasted), PACE_LEAST), PACE_MOST)
  local till = breaker.phase == RAMP and breaker.since + breaker.length or 0
  breaker.relapses = is_weak(breaker, at) and min(breaker.relapses + 1, DOUBLINGS) or 0
  local latest = breaker.episodes[#breaker.episodes]
  if breaker.phase == RAMP and latest and at <= till then
    -- The same episode: the target had not come back.
    latest.till = 0
  else
    begin_episode(breaker, first)
  end
  breaker.phase = OPEN
  breaker.wait, breaker.next = PROBE_FIRST * 3 / 2, at + drawn(PROBE_FIRST, draw)
  breaker.mark = breaker.mark + 1
  breaker.probes, breaker.tried, breaker.outcomes = {}, {}, ''
end

local function close(breaker, full, at)
  local latest = breaker.episodes[#breaker.episodes]
  local half = floor((at - (latest and latest.from or at)) / 2)
  breaker.phase, breaker.since = RAMP, at
  breaker.length = min(max(half, RAMP_LEAST), RAMP_MOST) * 2 ^ breaker.relapses
  breaker.full, breaker.started = full == 0 and breaker.pace or full, 0
  end_episode(breaker, at + breaker.length)
  breaker.mark = breaker.mark + 1
end

local function eject(breaker, host, at)
  breaker.ejected = kept(breaker.ejected, function(known) return at < known.till and known.host ~= host end)
  if #breaker.ejected < EJECTED_MAX then
    breaker.ejected[#breaker.ejected + 1] = { host = host, till = at + EJECTED }
  end
end

function breaker_ended(breaker, step, host, outcome, draw, full, only_watches, at)
  if breaker.phase == OPEN then
    local stands_for_one, count = only_watches and breaker.next <= at, #breaker.probes
    breaker.probes = kept(breaker.probes, function(probe) return probe.step ~= step end)
    if (stands_for_one or #breaker.probes < count) and outcome == SERVED then
      close(breaker, full, at)
    end
    return
  elseif outcome == NOTHING then
    return
  end
  local at_ms, failed = floor(at / 1000), outcome == FAILED
  local outcomes = breaker.outcomes .. pack(SEEN, at_ms, host, step % 65536, failed and 1 or 0)
  breaker.outcomes = sub(outcomes, max(#outcomes - OUTCOMES * SEEN_BYTES, 0) + 1)
  if failed then
    local seen = recent(breaker, at_ms)
    if is_dead(seen, is_weak(breaker, at) and IN_A_ROW_LEFT or IN_A_ROW) then
      open_up(breaker, seen, draw, at)
    elseif is_alone(seen, host) then
      eject(breaker, host, at)
    end
  end
end
end
