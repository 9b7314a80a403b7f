-- Puts steps into a namespace that a copy fills. A step that is there already
-- was put by the same call before, sent twice.
--
-- KEYS  state, events, uses; then for each step: step, texts
-- ARGV  not after (µs), time given ('' in life), holder; then for each step:
--       header, value, use of a policy, texts of four failures ('' for none)
local ITEM = '<Bd'
local FIELDS, TEXTS = 7, 4
local wall = wall_time(ARGV[2])
if wall > tonumber(ARGV[1]) then
  return { 'void', text(wall) }
end
local raw = redis.call('GET', KEYS[1])
if not raw then
  return { 'unknown', text(wall) }
end
local state = unpack_state(raw)
if state.format ~= FORMAT then
  return { 'format', text(state.format) }
end
if state.holder ~= tonumber(ARGV[3]) or wall >= state.paused then
  return { 'changed', text(wall) }
end
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[3])

-- From here on nothing can fail: a copy begins on nothing.
for at = 1, (#KEYS - 3) / 2 do
  local base = 3 + (at - 1) * FIELDS
  local step, texts = KEYS[2 + 2 * at], KEYS[3 + 2 * at]
  local live, event = struct.unpack(ITEM, ARGV[base + 1])
  local use = ARGV[base + 3]
  if redis.call('EXISTS', step) == 0 then
    state.live = state.live + live
    if use ~= '' then
      redis.call('HINCRBY', KEYS[3], use, '1')
    end
    for number = 1, TEXTS do
      local kept = ARGV[base + 3 + number]
      if kept ~= '' then
        redis.call('RPUSH', texts, kept)
      end
    end
    redis.call('SET', step, ARGV[base + 2])
    -- 'reprise:{n}:state' and 'reprise:{n}:step:' are of one length.
    redis.call('ZADD', KEYS[2], text(event), string.sub(step, #KEYS[1] + 1))
  end
end
redis.call('SET', KEYS[1], pack_state(state))
return heading(state, math.max(wall, state.clock))
