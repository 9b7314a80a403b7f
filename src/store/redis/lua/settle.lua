-- Decides up to 64 items about steps of one namespace, in order, each on what
-- the one before left. First everything is read and checked, then everything
-- is written, and nothing that is written can fail.
--
-- KEYS  state, events, changes, inline, uses; then for each item: step, texts
-- ARGV  not after (µs), time given ('' in life); then for each item: header,
--       record, use of a policy, text of a failure
local ITEM = '<Bdddddddc8'
local READ, WRITE, PURGE, FILE = 0, 1, 2, 3
local WRITTEN, CONFLICT, CONFIGURATION, TIME, QUOTA, INLINE, FOUND, DUE, FILED, DAMAGED, PAUSED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
-- Failures whose texts are kept: EVIDENCE_MAX.
local TEXTS = 4
-- A plan holds for so long, µs.
local PATIENCE = 250000
-- A value is: id of the operation that wrote it (8 bytes), the score it has in
-- the event index (8), the policy it uses (its length in a byte, its name), the
-- record. In the record version, event and state stand at fixed places.
local HEAD, LEAST = 17, 57
local RUNNING, OVER = 2, 8

local state, wall, refusal = open()
if not state then
  return refusal
end
local now, changed = advance(state, wall)
local graced = grace(state, now)
local paused = state.paused > 0
changed = changed and not paused
redis.call('ZCARD', KEYS[2])
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HLEN', KEYS[5])

local answer = heading(state, now)
local values, unfiled, uses = {}, {}, {}
local sets, files, gone, texts, notes = {}, {}, {}, {}, {}

-- A value in its parts.
local function parts(value)
  local length = string.byte(value, HEAD)
  local from = HEAD + length
  return {
    raw = value,
    op = string.sub(value, 1, 8),
    filed = struct.unpack('<d', value, 9),
    use = string.sub(value, HEAD + 1, from),
    running = string.byte(value, from + 2) == RUNNING,
    live = string.byte(value, from + 2) < OVER,
    version = struct.unpack('<I8', value, from + 9),
    event = struct.unpack('<I8', value, from + 17),
    record = string.sub(value, from + 1),
  }
end

local function join(op, filed, use, record)
  return op .. struct.pack('<d', filed) .. string.char(#use) .. use .. record
end

-- What a step is now: false when there is none, nil when it is not readable.
local function current(step)
  local value = values[step]
  if value == nil then
    value = redis.pcall('GET', step)
    if type(value) == 'table' or (value and #value < LEAST) then
      return nil
    end
    value = value and parts(value)
    values[step] = value
  end
  return value
end

-- Why an item cannot be written as it was planned; nil when it can.
local function objection(item, value)
  if item.born ~= state.born or item.revision ~= state.revision then
    return CONFIGURATION
  end
  if item.version ~= (value and value.version or 0) then
    return CONFLICT
  end
  if item.leases ~= (graced > 0 and state.before or item.at) then
    return TIME
  end
  if item.at > now or now - item.at > PATIENCE then
    return TIME
  end
  if item.kind == PURGE then
    return nil
  end
  if item.version == 0 and state.live >= item.live_max then
    return QUOTA
  end
  if item.use ~= (value and value.use or '') and string.sub(item.use, 1, 7) == 'inline:' then
    if redis.call('HEXISTS', KEYS[4], string.sub(item.use, 8)) == 0 then
      return INLINE
    end
  end
end

local function file(member, at)
  unfiled[member] = nil
  push(files, text(at), member)
end

local function count(use, by)
  if use ~= '' then
    uses[use] = (uses[use] or 0) + by
  end
end

-- Notes that a step goes from one value to another; either may be none.
local function note(item, old, new)
  state.changes = state.changes + 1
  push(notes, item.member, new and text(new.version) or '0')
  state.live = state.live + (new and new.live and 1 or 0) - (old and old.live and 1 or 0)
  count(old and old.use or '', -1)
  count(new and new.use or '', 1)
  changed = true
end

local function write(item, old)
  local filed = old and old.filed
  if not filed or item.event < filed then
    filed = item.event
    file(item.member, filed)
  end
  local new = parts(join(item.op, filed, item.use, item.record))
  values[item.step] = new
  push(sets, item.step)
  if item.text ~= '' then
    push(texts, { step = item.step, key = item.texts, text = item.text })
  end
  note(item, old, new)
end

local function purge(item, old)
  if old then
    values[item.step] = false
    unfiled[item.member] = true
    push(gone, item.step, item.texts)
    note(item, old, false)
  end
end

-- Whether the event of a step has come. Where it is filed too early it is filed
-- where it belongs first, so that what is due is found in the order of events.
local function look(item, value)
  if not value then
    unfiled[item.member] = true
    return FILED, ''
  end
  local event = value.event
  if value.running and graced > 0 and event > state.before then
    event = math.max(event, graced)
  end
  if event <= value.filed and event <= now then
    return DUE, text(event)
  end
  file(item.member, event)
  values[item.step] = parts(join(value.op, event, value.use, value.record))
  push(sets, item.step)
  return FILED, ''
end

local function decide(item)
  local value = current(item.step)
  if value == nil then
    return DAMAGED, ''
  elseif item.kind == READ then
    return FOUND, value and value.record or ''
  elseif item.kind == FILE and paused then
    return FILED, ''
  elseif item.kind == FILE then
    return look(item, value)
  elseif value and value.op == item.op then
    -- Sent twice: it was done, and is not done again.
    return WRITTEN, ''
  elseif paused then
    return PAUSED, pause(state)
  end
  local code = objection(item, value)
  if code then
    return code, value and value.record or ''
  end
  if item.kind == WRITE then
    write(item, value)
  else
    purge(item, value)
  end
  return WRITTEN, ''
end

for at = 1, (#KEYS - 5) / 2 do
  local base = 2 + (at - 1) * 4
  local item = { step = KEYS[4 + 2 * at], texts = KEYS[5 + 2 * at] }
  item.kind, item.version, item.born, item.revision, item.at, item.leases,
    item.event, item.live_max, item.op = struct.unpack(ITEM, ARGV[base + 1])
  item.record, item.use, item.text = ARGV[base + 2], ARGV[base + 3], ARGV[base + 4]
  -- 'reprise:{n}:state' and 'reprise:{n}:step:' are of one length.
  item.member = string.sub(item.step, #KEYS[1] + 1)
  push(answer, decide(item))
end

answer[CHANGES] = text(state.changes)

-- From here on nothing can fail: every key was read as what it is. The first
-- alone could, on a log that is ahead of its state, and then nothing is written.
if #notes > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '4096', text(state.changes) .. '-0', 'at', text(now), unpack(notes))
end
if #gone > 0 then
  redis.call('UNLINK', unpack(gone))
end
local pairs_set = {}
for _, step in ipairs(sets) do
  if values[step] then
    push(pairs_set, step, values[step].raw)
  end
end
if changed then
  push(pairs_set, KEYS[1], pack_state(state))
end
if #pairs_set > 0 then
  redis.call('MSET', unpack(pairs_set))
end
if #files > 0 then
  redis.call('ZADD', KEYS[2], unpack(files))
end
for member in pairs(unfiled) do
  redis.call('ZREM', KEYS[2], member)
end
for use, by in pairs(uses) do
  if by ~= 0 and redis.call('HINCRBY', KEYS[5], use, by) <= 0 then
    redis.call('HDEL', KEYS[5], use)
  end
end
for _, kept in ipairs(texts) do
  -- Evidence is no state: a foreign value in its place is left alone.
  if values[kept.step] then
    local length = redis.pcall('RPUSH', kept.key, kept.text)
    if type(length) == 'number' and length > TEXTS then
      redis.call('LTRIM', kept.key, -TEXTS, -1)
    end
  end
end
return answer
