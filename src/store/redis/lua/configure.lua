-- Changes what governs a namespace, if it is still at a revision.
--
-- KEYS  state, events, changes, configuration, inline, uses
-- ARGV  not after (µs), time given ('' in life), born, revision, kind, field,
--       value; then policies that nothing may use any more and that go
local wall = wall_time(ARGV[2])
if wall > tonumber(ARGV[1]) then
  return { 'void', text(wall) }
end
local raw = redis.call('GET', KEYS[1])
local revision, kind, field, value = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local state
if raw then
  state = unpack_state(raw)
  if state.format ~= FORMAT then
    return { 'format', text(state.format) }
  end
else
  state = { born = 0, revision = 0, live = 0, changes = 0, clock = 0, swept = wall, before = 0,
    graced = 0, paused = 0, holder = 0 }
end
if tonumber(ARGV[3]) ~= state.born or revision ~= state.revision then
  return { 'changed', text(wall) }
end
local now = advance(state, wall)
if now < state.paused then
  return { 'paused', pause(state) }
end
local steps = redis.call('ZCARD', KEYS[2])
if redis.call('XLEN', KEYS[3]) + steps > 0 and not raw then
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
  return { 'ok', text(now), '0', '0', '0', '0', text(wall), '0' }
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
  redis.call('HSET', KEYS[4], field, value)
  state.revision = state.revision + 1
end
if state.born == 0 then
  state.born = now
end
redis.call('SET', KEYS[1], pack_state(state))
return heading(state, now)
