-- Puts steps into a namespace that a copy fills. A step that is there already
-- was put by the same call before, sent twice.
--
-- KEYS  state, events, uses, lists; then for each step: step, texts
-- ARGV  not after (µs), time given ('' in life), holder; then for each step:
--       header, value, use of a policy, texts of four failures ('' for none)
local ITEM = '<Bd'
local FIELDS = 7
local state, now, refusal = open_held(tonumber(ARGV[3]))
if not state then
  return refusal
end
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])

local pairs_set, files, uses, texts, listed = {}, {}, {}, {}, {}
for at = 1, (#KEYS - 4) / 2 do
  local base = 3 + (at - 1) * FIELDS
  local step, key = KEYS[3 + 2 * at], KEYS[4 + 2 * at]
  local live, event = struct.unpack(ITEM, ARGV[base + 1])
  local value, use = ARGV[base + 2], ARGV[base + 3]
  if redis.call('EXISTS', step) == 0 then
    state.live = state.live + live
    push(pairs_set, step, value)
    -- 'reprise:{n}:state' and 'reprise:{n}:step:' are of one length.
    local member = string.sub(step, #KEYS[1] + 1)
    push(files, text(event), member)
    local in_queue, in_run = queue_entry(value, member), run_entry(value, member)
    if in_queue then
      push(listed, '0', in_queue)
    end
    if in_run then
      push(listed, '0', in_run)
    end
    if use ~= '' then
      uses[use] = (uses[use] or 0) + 1
    end
    for _, kept in ipairs({ unpack(ARGV, base + 4, base + FIELDS) }) do
      if kept ~= '' then
        push(texts, { key = key, text = kept })
      end
    end
  end
end

-- From here on nothing can fail.
push(pairs_set, KEYS[1], pack_state(state))
redis.call('MSET', unpack(pairs_set))
if #files > 0 then
  redis.call('ZADD', KEYS[2], unpack(files))
end
if #listed > 0 then
  redis.call('ZADD', KEYS[4], unpack(listed))
end
for use, by in pairs(uses) do
  redis.call('HINCRBY', KEYS[3], use, by)
end
for _, kept in ipairs(texts) do
  -- Evidence is no state: a foreign value in its place is left alone, and found
  -- when the copy is compared.
  redis.pcall('RPUSH', kept.key, kept.text)
end
return heading(state, now)
