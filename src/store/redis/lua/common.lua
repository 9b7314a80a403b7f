-- What every script begins with. The state of a namespace is one packed value:
-- format, when the namespace was created, revision of its configuration, live
-- steps, number of the latest change, latest time used, latest sweep, and the
-- latest outage: the last instant before it, the end of the grace after it.
local STATE = '<Bdddddddd'
local FORMAT = 1
-- Mirrors of GRACE and STALL in the embedded store, µs.
local GRACE, STALL = 10e6, 3e6

local function text(number)
  return string.format('%.0f', number)
end

-- Server time, µs, read once a call. Given only where time itself is tested.
local function wall_time(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return time[1] * 1e6 + time[2]
end

-- Of another format nothing but that is known.
local function unpack_state(raw)
  local state = { format = string.byte(raw) or 0 }
  if state.format ~= FORMAT then
    return state
  end
  local _
  _, state.born, state.revision, state.live, state.changes,
    state.clock, state.swept, state.before, state.graced = struct.unpack(STATE, raw)
  return state
end

local function pack_state(state)
  return struct.pack(STATE, FORMAT, state.born, state.revision, state.live, state.changes,
    state.clock, state.swept, state.before, state.graced)
end

-- Time used: never before what was used already. A long pause since the latest
-- sweep is an outage, during which nobody could be heard. Whether one was noted.
local function advance(state, wall)
  state.wall = wall
  local now = math.max(wall, state.clock)
  state.clock = now
  if now - state.swept <= STALL then
    return now, false
  end
  if state.swept >= state.graced then
    state.before = state.swept
  end
  state.graced = now + GRACE
  state.swept = now
  return now, true
end

-- End of the grace that lasts at `now`; 0 without one.
local function grace(state, now)
  return now < state.graced and state.graced or 0
end

-- What every answer begins with. The last of it is the latest change.
local CHANGES = 8
local function heading(state, now)
  return { 'ok', text(now), text(state.born), text(state.revision), text(state.before),
    text(grace(state, now)), text(state.wall), text(state.changes) }
end

-- How every script about a namespace begins: its state, and the server's time;
-- or no state and what is to be answered. A call that comes too late is void.
local function open()
  local wall = wall_time(ARGV[2])
  if wall > tonumber(ARGV[1]) then
    return nil, wall, { 'void', text(wall) }
  end
  local raw = redis.call('GET', KEYS[1])
  if not raw then
    return nil, wall, { 'unknown', text(wall) }
  end
  local state = unpack_state(raw)
  if state.format ~= FORMAT then
    return nil, wall, { 'format', text(state.format) }
  end
  return state, wall
end
