-- Founds a namespace that a copy fills, or adds to what governs it. It is paused
-- until the copy is whole.
--
-- KEYS  state, configuration, inline
-- ARGV  not after (µs), time given ('' in life), holder, end of the pause (µs),
--       revision, number of the latest change, when workers were last heard (µs);
--       then pairs of field and value
local wall = wall_time(ARGV[2])
if wall > tonumber(ARGV[1]) then
  return { 'void', text(wall) }
end
local raw = redis.call('GET', KEYS[1])
local holder = tonumber(ARGV[3])
local state
if raw then
  state = unpack_state(raw)
  if state.format ~= FORMAT then
    return { 'format', text(state.format) }
  end
  if state.holder ~= holder or wall >= state.paused then
    return { 'changed', text(wall) }
  end
else
  state = { born = wall, revision = tonumber(ARGV[5]), live = 0, changes = tonumber(ARGV[6]), clock = wall,
    swept = tonumber(ARGV[7]), before = 0, graced = 0, paused = tonumber(ARGV[4]), holder = holder }
end
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])

-- From here on nothing can fail.
for at = 8, #ARGV, 2 do
  local digest = string.match(ARGV[at], '^inline:(.*)$')
  if digest then
    redis.call('HSET', KEYS[3], digest, ARGV[at + 1])
  else
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  end
end
redis.call('SET', KEYS[1], pack_state(state))
return heading(state, math.max(wall, state.clock))
