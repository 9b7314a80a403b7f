-- What every script begins with. The state of a namespace is one packed value:
-- format, when the namespace was created, revision of its configuration, live
-- steps, number of the latest change, latest time used, latest sweep or change, and the
-- latest outage (the last instant before it, the end of the grace after it).
-- While the namespace is paused the format is another, and at the end stand the
-- end of the pause and who holds it, 0 for an operator.
local STATE, PAUSE = '<Bdddddddd', '<dd'
local FORMAT, PAUSE_FORMAT = 1, 2
-- Mirrors of GRACE and STALL in the embedded store, µs.
local GRACE, STALL = 10e6, 3e6

local function text(number)
  return string.format('%.0f', number)
end

local function push(list, ...)
  for _, value in ipairs({ ... }) do
    list[#list + 1] = value
  end
end

-- The entry of a step in its queue, among those of all queues: in the order of
-- queues, then of instants; its labels at the end, where it has any. None unless
-- the step waits in one. A value is as settle.lua has it, a record as
-- src/store/record.rs has it.
local LISTED_FORMAT, WAITING, OF_RUN, LABELED = 4, 0, 16, 64
local function queue_entry(value, member)
  local from = 17 + string.byte(value, 17)
  local format, state, flags = string.byte(value, from + 1, from + 3)
  local length = string.byte(value, from + 49)
  if format ~= LISTED_FORMAT or state ~= WAITING or not length or length == 0 then
    return nil
  end
  local queue = string.sub(value, from + 50, from + 49 + length)
  local due = text((struct.unpack('<I8', value, from + 33)))
  -- Of one length, so that instants sort as numbers do.
  local entry = queue .. ' ' .. string.rep('0', 16 - #due) .. due .. ' ' .. member
  if math.floor(flags / LABELED) % 2 == 0 then
    return entry
  end
  local at = from + 50 + length
  local size = struct.unpack('<I2', value, at)
  return entry .. ' ' .. string.sub(value, at + 2, at + 1 + size)
end

-- The entry of a step that belongs to a run which was begun, among those of all
-- queues: no queue has an empty name.
local function run_entry(value, member)
  local from = 17 + string.byte(value, 17)
  local format, _, flags = string.byte(value, from + 1, from + 3)
  return format == LISTED_FORMAT and math.floor(flags / OF_RUN) % 2 == 1 and ' ' .. member or nil
end

-- Server time, µs, read once a call. Given only where time itself is tested.
local function wall_time(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return time[1] * 1e6 + time[2]
end

-- The state of a namespace that begins, and was swept last at an instant.
local function new_state(swept)
  return { born = 0, revision = 0, live = 0, changes = 0, clock = 0, swept = swept,
    before = 0, graced = 0, paused = 0, holder = 0 }
end

-- Of another format nothing but that is known.
local function unpack_state(raw)
  local format = string.byte(raw) or 0
  if format ~= FORMAT and format ~= PAUSE_FORMAT then
    return nil, format
  end
  local state = { paused = 0, holder = 0 }
  local _, after
  _, state.born, state.revision, state.live, state.changes,
    state.clock, state.swept, state.before, state.graced, after = struct.unpack(STATE, raw)
  if format == PAUSE_FORMAT then
    state.paused, state.holder = struct.unpack(PAUSE, raw, after)
  end
  return state, format
end

-- Releases that know no pause read the first format alone: they work beside
-- this one, and are kept out of what is paused.
local function pack_state(state)
  local pause = ''
  if state.paused > 0 then
    pause = struct.pack(PAUSE, state.paused, state.holder)
  end
  return struct.pack(STATE, pause == '' and FORMAT or PAUSE_FORMAT, state.born, state.revision,
    state.live, state.changes, state.clock, state.swept, state.before, state.graced) .. pause
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

-- Time used: never before what was used already. A pause that has ended by
-- itself is none any more.
local function use_time(state, wall)
  local now = math.max(wall, state.clock)
  state.wall, state.clock = wall, now
  if state.paused <= now then
    state.paused, state.holder = 0, 0
  end
  return now
end

-- Time used. A long time since the latest sweep or change is an outage, during
-- which nobody could be heard. Whether one was noted.
local function advance(state, wall)
  local now = use_time(state, wall)
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

-- What every answer begins with: 'ok', and in one piece what src/store/redis/wire.rs
-- calls its heading.
local HEADING = '<ddddddd'
local function reheaded(answer, state, now)
  answer[2] = struct.pack(HEADING, now, state.born, state.revision, state.before, grace(state, now),
    state.wall, state.changes)
  return answer
end

local function heading(state, now)
  return reheaded({ 'ok' }, state, now)
end

-- What is answered to what a pause forbids.
local function pause(state)
  return text(state.paused) .. ' ' .. text(state.holder)
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
  local state, format = unpack_state(raw)
  if not state then
    return nil, wall, { 'format', text(format) }
  end
  return state, wall
end

-- How a script begins that fills a namespace for a copy, which has to hold the
-- pause still. Nobody sweeps there, and that is no outage.
local function open_held(holder)
  local state, wall, refusal = open()
  if not state then
    return nil, wall, refusal
  end
  local now = use_time(state, wall)
  if state.holder ~= holder then
    return nil, now, { 'changed', text(wall) }
  end
  return state, now
end
