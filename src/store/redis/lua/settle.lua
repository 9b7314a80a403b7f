-- Decides up to 64 items about steps of one namespace, in order, each on what
-- the one before left. First everything is read and checked, then everything
-- is written, and nothing that is written can fail.
--
-- KEYS  state, events, changes, inline, uses, lists; then for each item: step,
--       texts; then those of the states of targets, and of the set of those
--       states where steps are parked
-- ARGV  not after (µs), time given ('' in life); then for each item: header,
--       value, text of a failure, in one piece. Of a step that targets bound:
--       header, each value that may follow from their answer (which, its event,
--       its length, itself), what is asked of them, text
local ITEM = '<BdddddddI4'
local READ, WRITE, PURGE, FILE, BOUND = 0, 1, 2, 3, 4
local WRITTEN, CONFLICT, CONFIGURATION, TIME, QUOTA, INLINE, FOUND, DUE, FILED, DAMAGED, PAUSED, AGAIN, ADMITTED, EPISODES =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
-- Failures whose texts are kept: EVIDENCE_MAX.
local TEXTS = 4
-- A plan holds for so long, µs.
local PATIENCE = 250000
-- A value is: id of the operation that wrote it (8 bytes), the score it has in
-- the event index (8), the policy it uses (its length in a byte, its name), the
-- record. In the record version, event and state stand at fixed places.
local FILED_AT, USE_AT, LEAST = 9, 17, 57
local STATE_AT, VERSION_AT, EVENT_AT = 2, 9, 17
local RUNNING, OVER = 2, 8
-- In the record of a step that waits for an instant, where that stands.
local INSTANT_AT = 33
local FOLLOWS, FOLLOWS_HEAD, FOLLOWS_MAX = '<BdI4', 13, 8

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
redis.call('ZCARD', KEYS[6])

local byte, sub, pack, unpack_ = string.byte, string.sub, struct.pack, struct.unpack
local answer = heading(state, now)
-- By key of a step: its value as it is by now, false when there is none; and
-- those that are to be written.
local values, written = {}, {}
local files, unfiled, uses, notes, gone, texts = {}, {}, {}, {}, {}, {}
-- By entry of a list, whether it is there from now on.
local listed = {}
local noted, filed = 0, 0

-- Where the record of a value begins, less one.
local function head(value)
  return USE_AT + byte(value, USE_AT)
end

local function use_of(value)
  return sub(value, USE_AT + 1, head(value))
end

-- What a step is now: false when there is none, nil when it is not readable.
local function current(step)
  local value = values[step]
  if value == nil then
    value = redis.pcall('GET', step)
    if type(value) == 'table' or (value and #value < LEAST) then
      return nil
    end
    values[step] = value
  end
  return value
end

local function file(member, at)
  unfiled[member] = nil
  filed = filed + 2
  files[filed - 1], files[filed] = at, member
end

local function count(use, by)
  if use ~= '' then
    uses[use] = (uses[use] or 0) + by
  end
end

-- Notes that a step goes from one value to another; either may be none.
local function note(member, version, old, new)
  local old_use, new_use, lived, lives = '', '', 0, 0
  if old then
    local from = head(old)
    old_use = sub(old, USE_AT + 1, from)
    lived = byte(old, from + STATE_AT) < OVER and 1 or 0
  end
  if new then
    local from = head(new)
    new_use = sub(new, USE_AT + 1, from)
    lives = byte(new, from + STATE_AT) < OVER and 1 or 0
  end
  if old_use ~= new_use then
    count(old_use, -1)
    count(new_use, 1)
  end
  state.live = state.live + lives - lived
  state.changes = state.changes + 1
  noted = noted + 2
  notes[noted - 1], notes[noted] = member, version
end

-- Whether a policy that was given inline is still remembered.
local function remembered(new, old)
  local use = use_of(new)
  return use == '' or sub(use, 1, 7) ~= 'inline:' or (old and use_of(old) == use)
    or redis.call('HEXISTS', KEYS[4], sub(use, 8)) == 1
end

local function move(before, after)
  if before ~= after then
    if before then
      listed[before] = false
    end
    if after then
      listed[after] = true
    end
  end
end

-- Moves a step in the lists that it stands in; either value may be none.
local function relist(member, old, new)
  move(old and queue_entry(old, member), new and queue_entry(new, member))
  move(old and run_entry(old, member), new and run_entry(new, member))
end

-- Writes a value, and files its event where that comes earlier than before.
local function write(step, member, old, new, version, event)
  if not old or event < unpack_('<d', old, FILED_AT) then
    file(member, event)
  else
    new = sub(new, 1, FILED_AT - 1) .. sub(old, FILED_AT, USE_AT - 1) .. sub(new, USE_AT)
  end
  values[step] = new
  written[step] = true
  relist(member, old, new)
  note(member, version + 1, old, new)
end

local function purge(step, kept, member, old)
  if old then
    values[step] = false
    written[step] = nil
    unfiled[member] = true
    gone[#gone + 1] = step
    gone[#gone + 1] = kept
    relist(member, old, false)
    note(member, 0, old, false)
  end
end

-- Whether the event of a step has come. Where it is filed too early it is filed
-- where it belongs first, so that what is due is found in the order of events.
local function look(step, member, value)
  if not value then
    unfiled[member] = true
    return FILED, ''
  end
  local from = head(value)
  local event, filed = unpack_('<I8', value, from + EVENT_AT), unpack_('<d', value, FILED_AT)
  if byte(value, from + STATE_AT) == RUNNING and graced > 0 and event > state.before then
    event = math.max(event, graced)
  end
  if event <= filed and event <= now then
    return DUE, text(event)
  end
  file(member, event)
  values[step] = sub(value, 1, FILED_AT - 1) .. pack('<d', event) .. sub(value, USE_AT)
  written[step] = true
  return FILED, ''
end

-- The record of a value, as it is handed back.
local function found(value)
  return value and sub(value, head(value) + 1) or ''
end

-- Why an item cannot be done as it was planned; nil when it can.
local function objection(version, born, revision, at, leases, value)
  if born ~= state.born or revision ~= state.revision then
    return CONFIGURATION
  elseif version ~= (value and unpack_('<I8', value, head(value) + VERSION_AT) or 0) then
    return CONFLICT
  elseif leases ~= (graced > 0 and state.before or at) or at > now or now - at > PATIENCE then
    return TIME
  end
end

local function keep_text(step, kept, item, from)
  if #item >= from then
    texts[#texts + 1] = { step = step, key = kept, text = sub(item, from) }
  end
end

-- A value for a step that waits for an instant which was found just now.
local function due_at(value, at, event)
  local from = head(value)
  return sub(value, 1, FILED_AT - 1) .. pack('<d', event) .. sub(value, USE_AT, from + EVENT_AT - 1)
    .. pack('<I8', event) .. sub(value, from + EVENT_AT + 8, from + INSTANT_AT - 1)
    .. pack('<I8', at) .. sub(value, from + INSTANT_AT + 8)
end

-- The value that follows from an answer of targets, and its event.
local function following(item, from, code, at)
  for _ = 1, FOLLOWS_MAX do
    local known, event, length, start = unpack_(FOLLOWS, item, from)
    if known == code then
      local value = sub(item, start, start + length - 1)
      if at == 0 then
        return value, event
      end
      return due_at(value, at, at + event), at + event
    end
    from = start + length
  end
end

local function decide(item, step, kept, member)
  local kind, version, born, revision, at, leases, event, live_max, length, from = unpack_(ITEM, item)
  local value = current(step)
  if value == nil then
    return DAMAGED, ''
  elseif kind == READ then
    return FOUND, found(value)
  elseif kind == FILE and paused then
    return FILED, ''
  elseif kind == FILE then
    return look(step, member, value)
  end
  -- The operation, and the policy that is used, are the same in all that may follow.
  local first = kind == BOUND and from + FOLLOWS_HEAD or from
  local new = sub(item, first, from + length - 1)
  if value and kind ~= PURGE and sub(value, 1, 8) == sub(new, 1, 8) then
    -- Sent twice: it was done, and is not done again.
    return kind == BOUND and AGAIN or WRITTEN, kind == BOUND and found(value) or ''
  elseif paused then
    return PAUSED, pause(state)
  end
  local code = objection(version, born, revision, at, leases, value)
  if code then
    return code, found(value)
  elseif kind == PURGE then
    purge(step, kept, member, value)
    return WRITTEN, ''
  elseif version == 0 and state.live >= live_max then
    return QUOTA, ''
  elseif not remembered(new, value) then
    return INLINE, ''
  elseif kind == WRITE then
    write(step, member, value, new, version, event)
    keep_text(step, kept, item, from + length)
    return WRITTEN, ''
  end
  local asks, after, other = limits_asked(item, from + length)
  if other then
    return EPISODES, other
  end
  local admission, instant, said = limits_admit(asks, at, leases, member)
  new, event = following(item, from, admission, instant)
  write(step, member, value, new, version, event)
  keep_text(step, kept, item, after)
  return ADMITTED, said
end

-- 'reprise:{n}:state' and 'reprise:{n}:step:' are of one length.
local members_from = #KEYS[1] + 1
limits_now = now
local answered = #answer
for at = 3, #ARGV do
  local step = KEYS[2 * at + 1]
  answered = answered + 2
  answer[answered - 1], answer[answered] =
    decide(ARGV[at], step, KEYS[2 * at + 2], sub(step, members_from))
end
answer[CHANGES] = text(state.changes)
if noted > 0 then
  -- Somebody was heard: until now there was no outage.
  state.swept = now
end
if limits_read then
  limits_read()
end

-- From here on nothing can fail: every key was read as what it is. The first
-- alone could, on a log that is ahead of its state, and then nothing is written.
if noted > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '4096', text(state.changes) .. '-0', 'at', text(now), unpack(notes))
end
if limits_write then
  limits_write()
end
if #gone > 0 then
  redis.call('UNLINK', unpack(gone))
end
local pairs_set, set = {}, 0
for step in pairs(written) do
  set = set + 2
  pairs_set[set - 1], pairs_set[set] = step, values[step]
end
if changed or noted > 0 then
  set = set + 2
  pairs_set[set - 1], pairs_set[set] = KEYS[1], pack_state(state)
end
if set > 0 then
  redis.call('MSET', unpack(pairs_set))
end
if filed > 0 then
  redis.call('ZADD', KEYS[2], unpack(files))
end
for member in pairs(unfiled) do
  redis.call('ZREM', KEYS[2], member)
end
local put, taken = {}, {}
for entry, is_there in pairs(listed) do
  if is_there then
    push(put, '0', entry)
  else
    push(taken, entry)
  end
end
if #put > 0 then
  redis.call('ZADD', KEYS[6], unpack(put))
end
if #taken > 0 then
  redis.call('ZREM', KEYS[6], unpack(taken))
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
