-- The calendar of a rate, as domain/limit/calendar.rs has it; a property holds
-- the two equal, answer by answer. Layers, buckets, pages, groups and marks are
-- explained there.
--
-- A calendar is one hash. Field g is packed: format, past, closed, the latest
-- id of a layer, and for each layer id, width, capacity, gap, the bucket behind
-- its last, the page that it is swept to, and the groups that have any page.
-- The first layer is the one that starts are reserved in. Fields p<id>:<page>
-- and m<id>:<group> are its pages and marks, 256 bytes each; one that would be
-- all zero is not kept.
--
-- What is read is kept until the end of the script, and so is what changes:
-- calendar_open, any number of questions and reservations, calendar_writes (the
-- last that reads), then one HSET of the pairs and one HDEL of the fields that
-- it lists. A calendar is opened once in a script.
local calendar_open, calendar_room, calendar_take, calendar_give_back, calendar_load, calendar_share, calendar_writes
do
local CALENDAR, LAYER = '<Bddd', '<dddBdd'
local VERSION = 1
local SPAN, GROUPS, HORIZON = 256, 4, 196608
local LAYERS_MAX, EFFORT_MAX, EFFORT = 4, 4096, 8
local FULL, KEPT = 255, 1
local NONE, ALL = string.rep('\0', 256), string.rep('\255', 256)
local INSTANT_MAX = 9007199254740991
-- The share of a bucket that has no room.
local SHARE_MAX = 1000
-- Past pages that go in a call, beside two for each that came.
local SWEPT = 8

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local byte_at, find, sub = string.byte, string.find, string.sub

local function field(kind, layer, number)
  return kind .. text(layer.id) .. ':' .. text(number)
end

-- 256 bytes of the hash.
local function read(cal, name)
  local bytes = redis.call('HGET', cal.key, name) or NONE
  return #bytes == SPAN and bytes or sub(bytes .. NONE, 1, SPAN)
end

local function new_layer(id, width, capacity, gap)
  return {
    id = id, width = width, capacity = capacity, gap = gap, finish = 0, first = 0, swept = 0,
    -- Groups that have any page: in order, and by number.
    groups = {}, has = {},
    -- What was read or written, and which of it was written.
    pages = {}, marks = {}, paged = {}, marked = {},
  }
end

-- The first place behind `place` that is not full; strings are one when equal.
local function not_full(bytes, place)
  if bytes == ALL then
    return nil
  end
  local _, last = find(bytes, '^\255*', place + 1)
  return last < SPAN and last + 1 or nil
end

-- The first place behind `place` whose bucket has room.
local function free(layer, bytes, place)
  if layer.gap then
    return find(bytes, '\0', place + 1, true)
  end
  return not_full(bytes, place)
end

local function unpack_layer(raw, at)
  local id, width, capacity, gap, finish, swept, count, group
  id, width, capacity, gap, finish, swept, at = struct.unpack(LAYER, raw, at)
  local layer = new_layer(id, width, capacity, gap == 1)
  layer.finish, layer.swept = finish, swept
  count, at = struct.unpack('<d', raw, at)
  for _ = 1, min(count, #raw) do
    group, at = struct.unpack('<d', raw, at)
    layer.groups[#layer.groups + 1] = group
    layer.has[group] = true
  end
  return layer, at
end

local function pack_layer(layer)
  local parts = {
    struct.pack(LAYER, layer.id, layer.width, layer.capacity, layer.gap and 1 or 0,
      layer.finish, layer.swept),
    struct.pack('<d', #layer.groups),
  }
  for _, group in ipairs(layer.groups) do
    parts[#parts + 1] = struct.pack('<d', group)
  end
  return table.concat(parts)
end

local function pack(cal)
  local parts = { struct.pack(CALENDAR, VERSION, cal.past, cal.closed, cal.latest) }
  for _, layers in ipairs({ cal.layers, cal.over }) do
    for _, layer in ipairs(layers) do
      parts[#parts + 1] = pack_layer(layer)
    end
  end
  return table.concat(parts)
end

local function page_of(cal, layer, page)
  if page < layer.first then
    return NONE
  end
  local bytes = layer.pages[page]
  if not bytes then
    bytes = read(cal, field('p', layer, page))
    layer.pages[page] = bytes
  end
  return bytes
end

local function marks_of(cal, layer, group)
  if not layer.has[group] then
    return NONE
  end
  local marks = layer.marks[group]
  if not marks then
    marks = read(cal, field('m', layer, group))
    layer.marks[group] = marks
  end
  return marks
end

local function put_marks(cal, layer, group, marks)
  layer.marks[group], layer.marked[group] = marks, true
  local has = marks ~= NONE
  if has == (layer.has[group] or false) then
    return
  end
  cal.changed, layer.has[group] = true, has
  local groups = {}
  for _, other in ipairs(layer.groups) do
    if other ~= group then
      groups[#groups + 1] = other
    end
  end
  if has then
    groups[#groups + 1] = group
  end
  layer.groups = groups
end

local function mark(layer, bytes)
  if bytes == NONE then
    return 0
  end
  -- Nothing has to be looked for where every byte of a full page is the same.
  local has_room = bytes ~= ALL and (not layer.gap or free(layer, bytes, 0))
  return has_room and KEPT or FULL
end

local function with(bytes, place, byte)
  return sub(bytes, 1, place) .. string.char(byte) .. sub(bytes, place + 2)
end

local function byte_of(cal, layer, bucket)
  if bucket < 0 then
    return 0
  end
  return byte_at(page_of(cal, layer, floor(bucket / SPAN)), bucket % SPAN + 1)
end

-- Writes the byte of a bucket, unless it is past, and the mark of its page.
local function set(cal, layer, bucket, byte)
  local page, place = floor(bucket / SPAN), bucket % SPAN
  local old = page_of(cal, layer, page)
  if page < layer.first or byte_at(old, place + 1) == byte then
    return
  end
  local new = with(old, place, byte)
  layer.pages[page], layer.paged[page] = new, true
  local before, after = mark(layer, old), mark(layer, new)
  if before == 0 then
    cal.came = cal.came + 1
  end
  if before ~= after then
    local group = floor(page / SPAN)
    put_marks(cal, layer, group, with(marks_of(cal, layer, group), page % SPAN, after))
  end
end

-- How many starts a bucket's byte stands for.
local function starts(layer, byte)
  if layer.gap then
    return (byte == 0 or byte == FULL) and 0 or 1
  end
  return byte == FULL and layer.capacity or byte
end

-- With a gap: the width of a place.
local function unit(layer)
  return ceil(layer.width / 254)
end

local function place_of(layer, at)
  return floor(at % layer.width / unit(layer)) + 1
end

-- The instants in an empty bucket that are a gap away from its neighbours.
local function between(cal, layer, bucket)
  local before, after = byte_of(cal, layer, bucket - 1), byte_of(cal, layer, bucket + 1)
  local from, till = 0, layer.width
  if starts(layer, before) > 0 then
    from = (before - 1) * unit(layer)
  end
  if starts(layer, after) > 0 then
    till = min(after * unit(layer), till)
  end
  return from, till
end

-- Tells a bucket without a start whether its neighbours leave it room.
local function look_at(cal, layer, bucket)
  if bucket >= 0 and starts(layer, byte_of(cal, layer, bucket)) == 0 then
    local from, till = between(cal, layer, bucket)
    set(cal, layer, bucket, from < till and 0 or FULL)
  end
end

local function look_around(cal, layer, bucket)
  look_at(cal, layer, bucket - 1)
  look_at(cal, layer, bucket + 1)
end

-- The first bucket from `bucket` on that has room.
local function room_from(cal, layer, bucket)
  local page = floor(bucket / SPAN)
  local found = free(layer, page_of(cal, layer, page), bucket % SPAN)
  if found then
    return page * SPAN + found - 1
  end
  page = page + 1
  local group, place = floor(page / SPAN), page % SPAN
  for _ = 1, GROUPS do
    found = not_full(marks_of(cal, layer, group), place)
    if found then
      page = group * SPAN + found - 1
      found = free(layer, page_of(cal, layer, page), 0)
      return found and page * SPAN + found - 1
    end
    group, place = group + 1, 0
  end
end

-- How many starts are reserved in buckets of a page, from one place to another;
-- `enough` when there are more.
local function starts_in_page(layer, bytes, place, last, enough)
  local sum = 0
  for _ = 1, SPAN do
    place = find(bytes, '[^%z]', place + 1)
    if not place or place > last + 1 or sum >= enough then
      break
    end
    sum = sum + starts(layer, byte_at(bytes, place))
  end
  return min(sum, enough)
end

-- How many starts are reserved in buckets that overlap [from, till); `enough`
-- when there are more.
local function starts_between(cal, layer, from, till, enough)
  local first = max(floor(from / layer.width), layer.first * SPAN)
  local last = floor((till - 1) / layer.width)
  local sum = 0
  for _, group in ipairs(layer.groups) do
    local page = max(floor(first / SPAN), group * SPAN)
    local page_last = min(floor(last / SPAN), group * SPAN + SPAN - 1)
    if page <= page_last and sum < enough then
      local marks = marks_of(cal, layer, group)
      local place = page % SPAN
      for _ = 1, SPAN do
        place = find(marks, '[^%z]', place + 1)
        page = place and group * SPAN + place - 1
        if not page or page > page_last or sum >= enough then
          break
        end
        local start = page * SPAN
        sum = sum + starts_in_page(layer, page_of(cal, layer, page), max(first - start, 0),
          min(last - start, SPAN - 1), enough - sum)
      end
    end
  end
  return sum
end

-- How many starts of older layers count against a bucket; `enough` when there
-- are more.
local function older_starts(cal, bucket, enough)
  if #cal.layers == 1 then
    return 0
  end
  local current, sum = cal.layers[1], 0
  local from, till = bucket * current.width, (bucket + 1) * current.width
  if current.gap then
    from, till = max(from - current.width, 0), till + current.width
  end
  for at, layer in ipairs(cal.layers) do
    if at > 1 and sum < enough then
      sum = sum + starts_between(cal, layer, from, till, enough - sum)
    end
  end
  return sum
end

-- How many starts of a layer, at least, count against a bucket of the current
-- one that lies within buckets without room.
local function starts_when_full(layer, current)
  local span = current.gap and 2 * current.width or current.width
  local buckets = ceil(span / layer.width)
  return layer.gap and floor(buckets / 2) or buckets * layer.capacity
end

-- The next bucket that older layers may admit after one that they refused.
local function next_after(cal, bucket)
  local current, after = cal.layers[1], bucket + 1
  for at, layer in ipairs(cal.layers) do
    if at > 1 and starts_when_full(layer, current) >= current.capacity then
      local room = room_from(cal, layer, floor(bucket * current.width / layer.width))
      if room then
        after = max(after, floor(room * layer.width / current.width))
      end
    end
  end
  return after
end

-- What starts from now on still depend on.
local function needs_from(layer, now)
  return max(floor(now / layer.width) * layer.width - (layer.gap and layer.width or 0), 0)
end

-- Forgets what no start from now on depends on. What is over is swept later.
local function forget(cal)
  cal.past = max(cal.past, needs_from(cal.layers[1], cal.now))
  local layers = {}
  for at, layer in ipairs(cal.layers) do
    layer.first = floor(floor(cal.past / layer.width) / SPAN)
    local list = (at == 1 or layer.finish * layer.width > cal.past) and layers or cal.over
    list[#list + 1] = layer
  end
  cal.layers = layers
end

-- Takes the part of the current bucket that has gone by.
local function begin_late(cal)
  local layer = cal.layers[1]
  local bucket = floor(cal.now / layer.width)
  local gone = cal.now - bucket * layer.width
  local share = ceil(layer.capacity * gone / layer.width)
  local byte = byte_of(cal, layer, bucket)
  if share > 0 and starts(layer, byte) + share < layer.capacity then
    set(cal, layer, bucket, byte + share)
    layer.finish = max(layer.finish, bucket + 1)
  elseif share > 0 then
    cal.closed = max(cal.closed, (bucket + 1) * layer.width)
  end
end

-- Gives up the older layer that ends first, and keeps the time until then closed.
local function close(cal)
  local first
  for at, layer in ipairs(cal.layers) do
    local finish = layer.finish * layer.width
    if at > 1 and (not first or finish < cal.layers[first].finish * cal.layers[first].width) then
      first = at
    end
  end
  local layer = table.remove(cal.layers, first)
  local gap = layer.gap and layer.width or 0
  cal.closed = max(cal.closed, layer.finish * layer.width + gap)
  layer.finish = 0
  cal.over[#cal.over + 1] = layer
end

local function known(cal, grid)
  for at, layer in ipairs(cal.layers) do
    if layer.width == grid.width and layer.capacity == grid.capacity and layer.gap == grid.gap then
      return at
    end
  end
end

-- Reserves under another grid from now on.
local function turn_to(cal, grid)
  local is_first, at = #cal.layers == 0, known(cal, grid)
  local layer
  if at then
    layer = table.remove(cal.layers, at)
  else
    cal.latest = cal.latest + 1
    layer = new_layer(cal.latest, grid.width, grid.capacity, grid.gap)
  end
  table.insert(cal.layers, 1, layer)
  cal.changed = true
  forget(cal)
  if not is_first then
    begin_late(cal)
  end
  if #cal.layers > LAYERS_MAX then
    close(cal)
  end
end

local function unpack_calendar(cal, raw)
  local at, layer, _
  _, cal.past, cal.closed, cal.latest, at = struct.unpack(CALENDAR, raw)
  -- Each layer takes some bytes, so there are fewer than bytes.
  for _ = 1, #raw do
    if at > #raw then
      break
    end
    layer, at = unpack_layer(raw, at)
    cal.layers[#cal.layers + 1] = layer
  end
end

-- The calendar at a key as that of a grid, { width =, capacity =, gap = }, as of
-- `now`; nil when there is something else.
function calendar_open(key, grid, now)
  local raw = redis.pcall('HGET', key, 'g')
  if type(raw) == 'table' or (raw and byte_at(raw) ~= VERSION) then
    return nil
  end
  local cal = { key = key, now = now, past = 0, closed = 0, latest = 0, layers = {}, over = {}, came = 0 }
  if raw then
    unpack_calendar(cal, raw)
    forget(cal)
  end
  if known(cal, grid) ~= 1 then
    turn_to(cal, grid)
  end
  return cal
end

-- The first admitted instants at `from` or later, [first, end), within one
-- bucket; nil when there are none within the horizon or the bounds of a search.
function calendar_room(cal, from)
  local layer = cal.layers[1]
  from = max(min(from, INSTANT_MAX), cal.now)
  local horizon = floor(cal.now / layer.width) + HORIZON
  local bucket = max(floor(from / layer.width), ceil(cal.closed / layer.width))
  local effort = 0
  for _ = 1, EFFORT_MAX do
    if effort >= EFFORT_MAX then
      return nil
    end
    bucket = room_from(cal, layer, bucket)
    if not bucket or bucket >= horizon or (bucket + 1) * layer.width > INSTANT_MAX then
      return nil
    end
    local spare = layer.capacity - starts(layer, byte_of(cal, layer, bucket))
    effort = effort + EFFORT + spare
    if older_starts(cal, bucket, spare) == spare then
      bucket = next_after(cal, bucket)
    else
      local first, till = 0, layer.width
      if layer.gap then
        first, till = between(cal, layer, bucket)
      end
      first, till = max(bucket * layer.width + first, from), bucket * layer.width + till
      if first < till then
        return first, till
      end
      bucket = bucket + 1
    end
  end
end

-- Reserves a start at an instant that calendar_room admitted.
function calendar_take(cal, at)
  local layer = cal.layers[1]
  local bucket = floor(at / layer.width)
  local byte = byte_of(cal, layer, bucket)
  if bucket >= layer.finish then
    layer.finish, cal.changed = bucket + 1, true
  end
  if not layer.gap then
    if byte ~= FULL then
      set(cal, layer, bucket, byte + 1 < layer.capacity and byte + 1 or FULL)
    end
  elseif starts(layer, byte) == 0 then
    set(cal, layer, bucket, place_of(layer, at))
    look_around(cal, layer, bucket)
  end
end

-- Returns a start that was taken under `grid`, if it is there.
function calendar_give_back(cal, grid, at)
  local layer = cal.layers[known(cal, grid) or 0]
  if not layer then
    return
  end
  local bucket = floor(at / layer.width)
  local byte = byte_of(cal, layer, bucket)
  if not layer.gap then
    set(cal, layer, bucket, max(starts(layer, byte) - 1, 0))
  elseif byte == place_of(layer, at) then
    set(cal, layer, bucket, 0)
    look_at(cal, layer, bucket)
    look_around(cal, layer, bucket)
  end
end

-- How many starts count against the bucket of an instant, and how many it may take.
function calendar_load(cal, at)
  local layer = cal.layers[1]
  local bucket = floor(at / layer.width)
  local own = starts(layer, byte_of(cal, layer, bucket))
  return own + older_starts(cal, bucket, layer.capacity - own), layer.capacity
end

-- How much of the bucket of an instant is taken, in thousandths: all of it where it
-- admits nothing.
function calendar_share(cal, at)
  local layer = cal.layers[1]
  at = min(at, INSTANT_MAX)
  local bucket = floor(at / layer.width)
  local byte = byte_of(cal, layer, bucket)
  if bucket * layer.width < cal.closed or byte == FULL or (layer.gap and byte ~= 0) then
    return SHARE_MAX
  end
  local used, most = calendar_load(cal, at)
  return floor(used * SHARE_MAX / most)
end

-- Lists pages before `first` to be deleted, and says how many more may be.
local function sweep(cal, layer, first, gone, budget)
  for _, group in ipairs(layer.groups) do
    local bound, place = min(first - group * SPAN, SPAN), 0
    local marks = bound > 0 and marks_of(cal, layer, group) or NONE
    for _ = 1, SPAN do
      local found = find(marks, '[^%z]', place + 1)
      if not found or found > bound or budget == 0 then
        break
      end
      gone[#gone + 1] = field('p', layer, group * SPAN + found - 1)
      place, budget = found, budget - 1
    end
    if place > 0 then
      put_marks(cal, layer, group, string.rep('\0', place) .. sub(marks, place + 1))
    end
  end
  if budget > 0 then
    layer.swept, cal.changed = first, true
  end
  return budget
end

-- Sweeps a bounded number of pages: more than came, so that they grow less.
local function sweep_all(cal, gone)
  local budget = SWEPT + 2 * cal.came
  local over = {}
  for _, layer in ipairs(cal.over) do
    budget = sweep(cal, layer, math.huge, gone, budget)
    if #layer.groups > 0 then
      over[#over + 1] = layer
    end
  end
  for _, layer in ipairs(cal.layers) do
    if layer.swept < layer.first then
      budget = sweep(cal, layer, layer.first, gone, budget)
    end
  end
  return over
end

-- Lists what changed of one kind.
local function list(layer, kind, changed, values, pairs_set, gone)
  for number in pairs(changed) do
    local name = field(kind, layer, number)
    if values[number] == NONE then
      gone[#gone + 1] = name
    else
      pairs_set[#pairs_set + 1] = name
      pairs_set[#pairs_set + 1] = values[number]
    end
  end
end

-- What is to be written: fields and values for HSET, fields for HDEL. Either
-- may be empty. The last that reads.
function calendar_writes(cal)
  local pairs_set, gone, has_changed = {}, {}, cal.changed
  for _, layer in ipairs(cal.layers) do
    has_changed = has_changed or next(layer.paged)
  end
  if not has_changed then
    return pairs_set, gone
  end
  local over = sweep_all(cal, gone)
  for _, layers in ipairs({ cal.layers, cal.over }) do
    for _, layer in ipairs(layers) do
      list(layer, 'p', layer.paged, layer.pages, pairs_set, gone)
      list(layer, 'm', layer.marked, layer.marks, pairs_set, gone)
    end
  end
  cal.over = over
  if cal.changed then
    pairs_set[#pairs_set + 1] = 'g'
    pairs_set[#pairs_set + 1] = pack(cal)
  end
  return pairs_set, gone
end
end
