-- What every script begins with. The state of a namespace is one packed value:
-- format, when the namespace was created, revision of its configuration, live
-- steps, number of the latest change, latest time used, latest sweep, the latest
-- outage (the last instant before it, the end of the grace after it), and the
-- pause: when it ends, 0 without one, and who holds it, 0 for an operator.
local STATE = '<Bdddddddddd'
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
    state.clock, state.swept, state.before, state.graced, state.paused,
    state.holder = struct.unpack(STATE, raw)
  return state
end

local function pack_state(state)
  return struct.pack(STATE, FORMAT, state.born, state.revision, state.live, state.changes,
    state.clock, state.swept, state.before, state.graced, state.paused, state.holder)
end

-- Notes an outage that ends now, and began with the latest sweep. One that came
-- within the grace after another began with that.
local function note_outage(state, now)
  if state.swept >= state.graced then
    state.before = state.swept
  end
  state.graced = now + GRACE
  state.swept = now
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
  note_outage(state, now)
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

-- What is answered to what a pause forbids.
local function pause(state)
  return text(state.paused) .. ' ' .. text(state.holder)
end
