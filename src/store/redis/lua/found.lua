-- Founds a namespace that a copy fills, or adds to what governs it. It is paused
-- until the copy is whole.
--
-- KEYS  state, configuration, inline
-- ARGV  not after (µs), time given ('' in life), holder, end of the pause (µs),
--       revision, number of the latest change, when workers were last heard (µs);
--       then pairs of field and value
local holder = tonumber(ARGV[3])
local state, now, refusal = open_held(holder)
if refusal and refusal[1] ~= 'unknown' then
  return refusal
end
if not state then
  state = new_state(tonumber(ARGV[7]))
  state.born, state.revision, state.changes = now, tonumber(ARGV[5]), tonumber(ARGV[6])
  state.paused, state.holder = tonumber(ARGV[4]), holder
  use_time(state, now)
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
return heading(state, now)
