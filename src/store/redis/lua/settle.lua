-- Decides up to 64 items about steps of one namespace, of which each changes
-- another; what is read is as it was before. First everything is read and
-- checked, then everything is written, and nothing that is written can fail.
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
local WRITTEN, CONFLICT, CONFIGURATION, TIME, QUOTA, INLINE, FOUND = 1, 2, 3, 4, 5, 6, 7
local DUE, FILED, DAMAGED, PAUSED, AGAIN, ADMITTED, EPISODES = 8, 9, 10, 11, 12, 13, 14
-- Failures whose texts are kept: EVIDENCE_MAX.
local TEXTS = 4
-- A plan holds for so long, µs.
local PATIENCE = 250000
-- A value is: id of the operation that wrote it (8 bytes), the score it has in
-- the event index (8), the policy it uses (its length in a byte, its name), the
-- record, which begins with its format, its state, its flags and its version, and
-- has 49 bytes or more.
local OPERATION_END, SCORE_END, LEAST = 8, 16, 66
local VALUE, USE = '<xxxxxxxxdBc0BBBxxxxxI8', '<Bc0'
-- From behind the version: where in the record it is said when something happens
-- next, which instant a step waits for, and how long its queue's name is.
local EVENT_AT, INSTANT_AT, QUEUE_AT = 0, 16, 32
local RUNNING, OVER = 2, 8
local FOLLOWS, FOLLOWS_HEAD, FOLLOWS_MAX = '<BdI4', 13, 8

local state, wall, refusal = open()
if not state then
  return refusal
end
local now, changed = advance(state, wall)
local graced = grace(state, now)
local paused = state.paused > 0
changed = changed and not paused

local byte, sub, pack, unpack_, min = string.byte, string.sub, struct.pack, struct.unpack, math.min
-- What is to be written: steps and their values, steps and texts that go, members
-- of the event index and those that leave it, changes, texts and their keys.
local sets, gone, files, unfiled, notes, texts, texts_keys = {}, {}, {}, {}, {}, {}, {}
local set, filed, noted, spoken = 0, 0, 0, 0
-- By policy, how many steps more use it; by entry of a list, whether it is there
-- from now on.
local uses, listed = {}, {}

local function put(key, value)
  set = set + 2
  sets[set - 1], sets[set] = key, value
end

local function file(member, at)
  filed = filed + 2
  files[filed - 1], files[filed] = at, member
end

local function note(member, version)
  state.changes = state.changes + 1
  noted = noted + 2
  notes[noted - 1], notes[noted] = member, version
end

local function count(use, by)
  if use ~= '' then
    uses[use] = (uses[use] or 0) + by
  end
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

-- A value as it is handed back.
local function found(value)
  return value and sub(value, OPERATION_END + 1) or ''
end

local function scored(value, score)
  return sub(value, 1, OPERATION_END) .. pack('<d', score) .. sub(value, SCORE_END + 1)
end

-- Of a value: its score, its policy, 1 when its step lives, whether that may stand
-- in a list (it has a queue or belongs to a run), and its version.
local function facts(raw, from)
  if not raw then
    return math.huge, '', 0, false, 0
  end
  local score, use, format, said, flags, version, after = unpack_(VALUE, raw, from)
  local lists = format == LISTED_FORMAT and (flags % (2 * OF_RUN) >= OF_RUN or byte(raw, after + QUEUE_AT) > 0)
  return score, use, said < OVER and 1 or 0, lists, version
end

-- Whether a policy that was given inline is still remembered.
local function remembered(use)
  return sub(use, 1, 7) ~= 'inline:' or redis.call('HEXISTS', KEYS[4], sub(use, 8)) == 1
end

-- Whether the event of a step has come. Where it is filed too early it is filed
-- where it belongs first, so that what is due is found in the order of events.
local function look(step, member, value)
  if not value then
    unfiled[#unfiled + 1] = member
    return FILED, ''
  end
  local score, _, _, said, _, _, after = unpack_(VALUE, value)
  local event = unpack_('<I8', value, after + EVENT_AT)
  if said == RUNNING and graced > 0 and event > state.before then
    event = math.max(event, graced)
  end
  if event <= score and event <= now then
    return DUE, text(event)
  end
  file(member, event)
  put(step, scored(value, event))
  return FILED, ''
end

-- Why an item cannot be done as it was planned; nil when it can.
local function objection(version, born, revision, at, leases, found_version)
  if paused then
    return PAUSED
  elseif born ~= state.born or revision ~= state.revision then
    return CONFIGURATION
  elseif version ~= found_version then
    return CONFLICT
  elseif leases ~= (graced > 0 and state.before or at) or at > now or now - at > PATIENCE then
    return TIME
  end
end

-- What is answered then. What was sent twice was done, and is not done again. The
-- operation is the same in all that may follow.
local function refused(code, kind, item, from, old)
  local first = kind == BOUND and from + FOLLOWS_HEAD or from
  if old and kind ~= PURGE and sub(old, 1, OPERATION_END) == sub(item, first, first + OPERATION_END - 1) then
    return kind == BOUND and AGAIN or WRITTEN, kind == BOUND and found(old) or ''
  elseif code == PAUSED then
    return code, pause(state)
  end
  return code, found(old)
end

local function purge(step, kept, member, old, use, lives)
  gone[#gone + 1] = step
  gone[#gone + 1] = kept
  unfiled[#unfiled + 1] = member
  relist(member, old, false)
  count(use, -1)
  state.live = state.live - lives
  note(member, 0)
end

-- The value that follows from an answer of targets, and its event. It waits for an
-- instant, if one was found just now. Where an event is filed that comes no later
-- than `score`, it is filed anew.
local function following(item, from, code, at, score)
  for _ = 1, FOLLOWS_MAX do
    local known, event, length, start = unpack_(FOLLOWS, item, from)
    from = start + length
    if known == code then
      event = at + event
      local head = sub(item, start, start + OPERATION_END - 1) .. pack('<d', min(event, score))
      if at == 0 then
        return head .. sub(item, start + SCORE_END, from - 1), event
      end
      local _, _, _, _, _, _, after = unpack_(VALUE, item, start)
      return head .. sub(item, start + SCORE_END, after + EVENT_AT - 1) .. pack('<I8', event)
        .. sub(item, after + EVENT_AT + 8, after + INSTANT_AT - 1) .. pack('<I8', at)
        .. sub(item, after + INSTANT_AT + 8, from - 1), event
    end
  end
end

-- Writes a value over another, of which this is known, or where there was none.
-- Its event is filed anew where that comes earlier than before. Tells the score
-- that it has, where that is not the one that was sent.
local function write(step, member, new, event, version, old, score, use, lives, lists)
  local new_score, new_use, new_lives, new_lists = facts(new)
  if new_use ~= use then
    if not remembered(new_use) then
      return INLINE, ''
    end
    count(new_use, 1)
    count(use, -1)
  end
  if event < score then
    score = event
    file(member, event)
  end
  local told = ''
  if score ~= new_score then
    new, told = scored(new, score), pack('<d', score)
  end
  put(step, new)
  note(member, version + 1)
  state.live = state.live + new_lives - lives
  if lists or new_lists then
    relist(member, old, new)
  end
  return WRITTEN, told
end

-- Writes what an item's targets have it become, and tells what they say; or what
-- their episodes are, when those are not as planned.
local function bound(step, member, item, from, length, at, leases, version, old, score, use, lives, lists)
  local new_use = unpack_(USE, item, from + FOLLOWS_HEAD + SCORE_END)
  if new_use ~= use and not remembered(new_use) then
    return INLINE, ''
  end
  local asks, text_from, other = limits_asked(item, from + length)
  if other then
    return EPISODES, other
  end
  local code, instant, said = limits_admit(asks, at, leases, member)
  local new, event = following(item, from, code, instant, score)
  write(step, member, new, event, version, old, score, use, lives, lists)
  return ADMITTED, said, text_from
end

local function decide(item, step, kept, member)
  local kind, version, born, revision, at, leases, event, live_max, length, from = unpack_(ITEM, item)
  local old = redis.pcall('GET', step)
  if type(old) == 'table' or old and (#old < LEAST or #old < LEAST + byte(old, SCORE_END + 1)) then
    return DAMAGED, ''
  elseif kind == READ then
    return FOUND, found(old)
  elseif kind == FILE and paused then
    return FILED, ''
  elseif kind == FILE then
    return look(step, member, old)
  end
  local score, use, lives, lists, found_version = facts(old)
  local code = objection(version, born, revision, at, leases, found_version)
  if code then
    return refused(code, kind, item, from, old)
  elseif kind == PURGE then
    if old then
      purge(step, kept, member, old, use, lives)
    end
    return WRITTEN, ''
  elseif version == 0 and state.live >= live_max then
    return QUOTA, ''
  end
  local told
  local text_from = from + length
  if kind == BOUND then
    code, told, text_from = bound(step, member, item, from, length, at, leases, version, old, score, use, lives, lists)
  else
    local new = sub(item, from, text_from - 1)
    code, told = write(step, member, new, event, version, old, score, use, lives, lists)
  end
  if (code == WRITTEN or code == ADMITTED) and #item >= text_from then
    spoken = spoken + 1
    texts_keys[spoken], texts[spoken] = kept, sub(item, text_from)
  end
  return code, told
end

-- 'reprise:{n}:state' and 'reprise:{n}:step:' are of one length.
local members_from = #KEYS[1] + 1
limits_now = now
local answer = heading(state, now)
local answered = #answer
for at = 3, #ARGV do
  local step = KEYS[2 * at + 1]
  answered = answered + 2
  answer[answered - 1], answer[answered] =
    decide(ARGV[at], step, KEYS[2 * at + 2], sub(step, members_from))
end
reheaded(answer, state, now)

-- What is written over must be what it is taken for.
if noted > 0 then
  -- Somebody was heard: until now there was no outage.
  state.swept = now
  redis.call('XLEN', KEYS[3])
end
if filed > 0 or #unfiled > 0 then
  redis.call('ZCARD', KEYS[2])
end
if next(uses) then
  redis.call('HLEN', KEYS[5])
end
local joined, left = {}, {}
if next(listed) then
  redis.call('ZCARD', KEYS[6])
  for entry, is_there in pairs(listed) do
    if is_there then
      push(joined, '0', entry)
    else
      push(left, entry)
    end
  end
end
if limits_read then
  limits_read()
end

-- From here on nothing can fail. The first alone could, on a log that is ahead of
-- its state, and then nothing is written.
if noted > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '4096', text(state.changes) .. '-0', 'at', text(now), unpack(notes))
end
if limits_write then
  limits_write()
end
if #gone > 0 then
  redis.call('UNLINK', unpack(gone))
end
if changed or noted > 0 then
  put(KEYS[1], pack_state(state))
end
if set > 0 then
  redis.call('MSET', unpack(sets))
end
if filed > 0 then
  redis.call('ZADD', KEYS[2], unpack(files))
end
if #unfiled > 0 then
  redis.call('ZREM', KEYS[2], unpack(unfiled))
end
if #joined > 0 then
  redis.call('ZADD', KEYS[6], unpack(joined))
end
if #left > 0 then
  redis.call('ZREM', KEYS[6], unpack(left))
end
for use, by in pairs(uses) do
  if by ~= 0 and redis.call('HINCRBY', KEYS[5], use, by) <= 0 then
    redis.call('HDEL', KEYS[5], use)
  end
end
for at, kept in ipairs(texts_keys) do
  -- Evidence is no state: a foreign value in its place is left alone.
  local length = redis.pcall('RPUSH', kept, texts[at])
  if type(length) == 'number' and length > TEXTS then
    redis.call('LTRIM', kept, -TEXTS, -1)
  end
end
return answer
