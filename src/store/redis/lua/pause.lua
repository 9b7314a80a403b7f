-- Pauses a namespace, keeps the pause up, or ends it. While it lasts nothing in
-- the namespace is changed but by its holder.
--
-- KEYS  state
-- ARGV  not after (µs), time given ('' in life), what is done, holder, end (µs)
--
-- What is done: 'pause', unless somebody else holds a pause; 'keep', if ours
-- lasts still; 'take', whoever holds it; 'end'; or nothing: 'look'. A pause that
-- has ended by itself is nobody's. Adds to the heading: end and holder of the
-- pause, number of the latest change, latest sweep.
local state, wall, refusal = open()
if not state then
  return refusal
end
local kind, holder, ends = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = use_time(state, wall)
local lasts = state.paused > 0
if kind == 'keep' and (not lasts or state.holder ~= holder) then
  return { 'changed', text(wall) }
end
if (kind == 'pause' or kind == 'end') and lasts and state.holder ~= holder then
  return { 'paused', pause(state) }
end
if kind == 'keep' then
  ends = math.max(ends, state.paused)
elseif kind == 'end' then
  if lasts then
    -- Nobody was heard meanwhile.
    note_outage(state, now)
  end
  ends, holder = 0, 0
end
if kind ~= 'look' then
  state.paused, state.holder = ends, holder
  redis.call('SET', KEYS[1], pack_state(state))
end

-- That nobody swept is told, but not noted: a pause is an outage from its
-- beginning to its end.
local standing = { text(state.paused), text(state.holder), text(state.changes), text(state.swept) }
local answer = heading(state, (advance(state, wall)))
push(answer, unpack(standing))
return answer
