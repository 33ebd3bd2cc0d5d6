-- admit: idempotency claim -> rate -> concurrency -> budget hold, all or nothing.
-- KEYS  life seeded holds call | rate* | inflight* | (current following)* | [idem [replays]]
-- ARGV  now run id hold hold_min lease room limited event #rates #inflight #budgets scopes day-index following_day
--       | (limit window)* | limit* | (limit boundary end following_end)* | [fingerprint ttl lease fail [limit window]]
-- Answers the text "<amount> <fence> <at> <now> <again> <life> | (spent held)* | remaining*", or a list: why not.

-- The row carries the day of `current`; an admission after the boundary belongs to the following one. The last
-- occurrence is the column: in a client's text the quotes would be escaped, and `decision` comes before it.
local function other_day(event, day)
  local head, tail = string.match(event, '^(.*"budget_day":")[^"]*(".*)$')
  if not head then return event end
  return head .. day .. tail
end

local now, run, id = clock(ARGV[1]), ARGV[2], ARGV[3]

local function newest_of(log) return tonumber(call('LINDEX', log, 0) or nil) end

-- How long until a log has room for an entry at `at`; 0: it has.
local function wait_for(log, newest, limit, window, at)
  if limit <= 0 then return window end
  if newest then
    local edge = tonumber(call('LINDEX', log, limit - 1) or nil)
    if edge and at - edge < window then return edge + window - now end
  end
  return 0
end

-- Puts an entry into a log; returns its length.
local function enter(log, newest, limit, window, at)
  local length = call('LPUSH', log, text(at))
  if length > limit then
    call('LTRIM', log, 0, limit - 1)
    length = limit
  end
  -- The first entry of each stretch of one window sets a TTL of two: it outlasts all others of the stretch.
  if not newest or math.floor(newest / window) ~= math.floor(at / window) then
    call('PEXPIRE', log, ms(2 * window + at - now))
  end
  return length
end

local found = call('MGET', KEYS[4], KEYS[1], KEYS[2])
local record = found[1]
if record then
  local state = seen(record, now)
  if state == 'H' then return string.match(record, '\n([^\n]*)') end
  if state then return {'cancelled'} end
end
if ARGV[7] == '0' then return {'no_room'} end
local life, stamp, quiet = shard(KEYS[1], found[2], run, now)
if ARGV[8] == '1' and found[3] ~= life then return {'unseeded'} end

local nr, nc, nb = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local kc = 4 + nr
local kb = kc + nc
local ac = 15 + 2 * nr
local ab = ac + nc
local idem = KEYS[kb + 2 * nb + 1]
local ai = ab + 4 * nb

local fence, again, used_before = 0, '0', false
if idem then
  local c = call('HMGET', idem, 'st', 'fp', 'fence', 'lease', 'exp')
  used_before = c[1]
  if not c[1] or now >= tonumber(c[5]) then
    fence = 1
  elseif c[1] == 'F' then
    fence = c[3] + 1
  elseif c[2] ~= ARGV[ai + 1] then
    return {'reused'}
  elseif c[1] == 'D' then
    local replays = KEYS[kb + 2 * nb + 2]
    if replays then
      local newest, limit, window = newest_of(replays), tonumber(ARGV[ai + 5]), tonumber(ARGV[ai + 6])
      local at = math.max(now, newest or now)
      local wait = wait_for(replays, newest, limit, window, at)
      if wait > 0 then return {'replays', text(wait)} end
      enter(replays, newest, limit, window, at)
    end
    local kept = call('HMGET', idem, 'head', 'body', 'call')
    return {'replay', kept[1], kept[2], kept[3] or ''}
  elseif c[1] == 'N' then
    return {'not_stored'}
  elseif now < tonumber(c[4]) or not trusted(stamp, quiet, now) then
    return {'in_progress'}
  elseif ARGV[ai + 4] == '1' then
    return {'outcome_unknown'}
  else
    fence, again = c[3] + 1, '1'
  end
end

local at = now
local newest = {}
for i = 1, nr do
  local t = newest_of(KEYS[4 + i])
  newest[i] = t
  if t and t > at then at = t end
end
local longest, which = 0, 0
for i = 1, nr do
  local wait = wait_for(KEYS[4 + i], newest[i], tonumber(ARGV[14 + 2 * i]), tonumber(ARGV[15 + 2 * i]), at)
  if wait > longest then longest, which = wait, i end
end
if which > 0 then return {'rate', which, text(longest)} end

for i = 1, nc do
  if call('ZCOUNT', KEYS[kc + i], '(' .. text(now), '+inf') >= tonumber(ARGV[ac + i]) then
    return {'concurrency', i}
  end
end

local granted, hold_min = tonumber(ARGV[4]), tonumber(ARGV[5])
local windows, money = {}, {}
for i = 1, nb do
  local a = ab + 4 * i - 3
  local key = KEYS[kb + 2 * i - 1]
  if at >= tonumber(ARGV[a + 1]) then key = KEYS[kb + 2 * i] end
  local w = call('HMGET', key, 'spent', 'held')
  windows[i], money[2 * i - 1], money[2 * i] = key, w[1] or '0', w[2]
  if ARGV[a] ~= '' then
    local limit, spent = tonumber(ARGV[a]), tonumber(w[1] or '0')
    local left = limit - spent - tonumber(w[2] or '0')
    if left < hold_min then
      local reserved = 0
      if spent + hold_min <= limit then reserved = 1 end
      return {'budget', i, w[1] or '0', w[2] or '0', text(at), reserved}
    end
    if left < granted then granted = left end
  end
end

-- Nothing refuses. What is written first is something Redis refuses when it is full, so that nothing is half done.
local amount, rest = text(granted), {}
for i = 1, nb do
  local fresh = not money[2 * i]
  money[2 * i] = text(call('HINCRBY', windows[i], 'held', amount))
  if fresh then
    local a = ab + 4 * i - 3
    local ends = tonumber(ARGV[a + 2])
    if at >= tonumber(ARGV[a + 1]) then ends = tonumber(ARGV[a + 3]) end
    call('PEXPIRE', windows[i], ms(math.max(ends - now, 0) + WINDOW_KEPT))
  end
end
for i = 1, nr do
  local key, limit, window = KEYS[4 + i], tonumber(ARGV[14 + 2 * i]), tonumber(ARGV[15 + 2 * i])
  local alive, edge = enter(key, newest[i], limit, window, at), at - window
  if alive > 1 and tonumber(call('LINDEX', key, -1)) <= edge then
    local low, high = 0, alive - 1                 -- entry `low` is in the window, entry `high` is not
    while high - low > 1 do
      local middle = math.floor((low + high) / 2)
      if tonumber(call('LINDEX', key, middle)) > edge then low = middle else high = middle end
    end
    alive = high
  end
  rest[i] = text(limit - alive)
end
local ending = text(now + tonumber(ARGV[6]))
for i = 1, nc do
  call('ZADD', KEYS[kc + i], ending, id)
  call('ZREMRANGEBYSCORE', KEYS[kc + i], '-inf', text(now))
end
call('ZADD', KEYS[3], ending, id)
if idem then
  if used_before then call('DEL', idem) end
  claim(idem, id, ARGV[ai + 1], text(fence), tonumber(ARGV[ai + 3]), tonumber(ARGV[ai + 2]), now)
end

local answer = amount .. ' ' .. text(fence) .. ' ' .. text(at) .. ' ' .. text(now) .. ' ' .. again .. ' ' .. life
if nb > 0 then answer = answer .. ' ' .. table.concat(money, ' ') end
if nr > 0 then answer = answer .. ' ' .. table.concat(rest, ' ') end
local event = ARGV[9]
local day = tonumber(ARGV[14])
if day > 0 and windows[day] == KEYS[kb + 2 * day] then event = other_day(event, ARGV[15]) end
call('SET', KEYS[4], 'H 0 ' .. amount .. ' ' .. life .. ' ' .. text(at) .. ' ' .. text(fence) .. '\n'
  .. answer .. '\n' .. ARGV[13] .. '\n' .. event)
return answer
