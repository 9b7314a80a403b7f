-- Changes what governs a namespace, if it is still at a revision.
--
-- KEYS  state, events, changes, configuration, inline, uses; then those of the
--       states of targets and of the set of those where steps are parked, which
--       go with the namespace
-- ARGV  not after (µs), time given ('' in life), born, revision, kind, field,
--       value, '' to delete the field; then policies that nothing may use any
--       more and that go
local state, wall, refusal = open()
local is_new = refusal and refusal[1] == 'unknown'
if refusal and not is_new then
  return refusal
end
state = state or new_state(wall)
local revision, kind, field, value = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
if tonumber(ARGV[3]) ~= state.born or revision ~= state.revision then
  return { 'changed', text(wall) }
end
local now = advance(state, wall)
if state.paused > 0 then
  return { 'paused', pause(state) }
end
local steps = redis.call('ZCARD', KEYS[2])
if redis.call('XLEN', KEYS[3]) + steps > 0 and is_new then
  return { 'headless' }
end
redis.call('HLEN', KEYS[4])
redis.call('HLEN', KEYS[5])
for at = 8, #ARGV do
  if redis.call('HEXISTS', KEYS[6], ARGV[at]) == 1 then
    return { 'changed', text(wall) }
  end
end
if kind == 'delete' and steps > 0 then
  return { 'steps', steps }
end

-- From here on nothing can fail.
if kind == 'delete' then
  redis.call('UNLINK', unpack(KEYS))
  state = new_state(now)
  state.wall = wall
  return heading(state, now)
end
for at = 8, #ARGV do
  local of, name = string.match(ARGV[at], '^(%a+):(.*)$')
  if of == 'inline' then
    redis.call('HDEL', KEYS[5], name)
  else
    redis.call('HDEL', KEYS[4], ARGV[at])
  end
end
if kind == 'inline' then
  redis.call('HSET', KEYS[5], field, value)
else
  if value == '' then
    redis.call('HDEL', KEYS[4], field)
  else
    redis.call('HSET', KEYS[4], field, value)
  end
  state.revision = state.revision + 1
end
if state.born == 0 then
  state.born = now
end
redis.call('SET', KEYS[1], pack_state(state))
return heading(state, now)
