-- Asks a calendar what a test wants to know.
--
-- KEYS[1]  the calendar
-- ARGV     now, width, capacity, gap ('1' or '0'); then for each question its
--          name, and four numbers
--
-- Returns each answer as text.
local function grid_of(width, capacity, gap)
  return { width = tonumber(width), capacity = tonumber(capacity), gap = gap == '1' }
end

local cal = calendar_open(KEYS[1], grid_of(ARGV[2], ARGV[3], ARGV[4]), tonumber(ARGV[1]))
if not cal then
  return { 'damaged' }
end

local function told(...)
  local parts = {}
  for _, number in ipairs({ ... }) do
    parts[#parts + 1] = text(number)
  end
  return table.concat(parts, ' ')
end

local ask = {
  room = function(from)
    return told(calendar_room(cal, from))
  end,
  -- Takes so many 256ths into the room that there is.
  start = function(from, share)
    local first, till = calendar_room(cal, from)
    if not first then
      return ''
    end
    local at = first + math.floor((till - 1 - first) * share / 256)
    calendar_take(cal, at)
    return told(at)
  end,
  take = function(at)
    calendar_take(cal, at)
    return ''
  end,
  load = function(at)
    return told(calendar_load(cal, at))
  end,
  share = function(at)
    return told(calendar_share(cal, at))
  end,
}

local answers = {}
for at = 5, #ARGV, 5 do
  if ARGV[at] == 'give_back' then
    calendar_give_back(cal, grid_of(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]), tonumber(ARGV[at + 1]))
    answers[#answers + 1] = ''
  else
    answers[#answers + 1] = ask[ARGV[at]](tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
  end
end

local pairs_set, gone = calendar_writes(cal)
if #pairs_set > 0 then
  redis.call('HSET', KEYS[1], unpack(pairs_set))
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
end
return answers
