-- One step of one provider's breaker: perpetuo/domain/policy/breaker.py, atomically. Answers with the breaker as it is then.
--
-- KEYS  1 perpetuo:cb:<provider>                      exists = open; operators may delete or set it
--       2 perpetuo:cbs:{perpetuo:cb:<provider>}       the rest of the state, in the same cluster slot
--       3 perpetuo:cbs:{perpetuo:cb:<provider>}:history   its changes, newest first: generation, when, cause, phase, until
-- ARGV  1 now in microseconds, empty in production (then TIME)
--       2 step, then its arguments:
--         see
--         count  generation outcomes failures connected streak  rate minimum window streak_limit open_for delta
--         probe  call lease
--         judge  call generation verdict open_for
--         open   open_for
--         close
-- Answer: phase until generation changed cause buckets streak granted probe lease by_hand now
--
-- Every step is safe to repeat after a lost reply: a delta is counted once (its id is remembered), a probe is granted
-- again to the call that has it, a verdict begins a new generation and so misses the second time.
--
-- Microseconds fit a Lua number (below 2^53) but not its text form, which keeps 14 digits: hence text().

local KEPT_MS = 86400000 -- an idle breaker is forgotten after a day; closed is what it then is anyway
local UNKNOWN_US = 30000000 -- a key set by hand without a TTL: nobody knows, so look again
local BUCKETS = 20
local CHANGES_KEPT = 50
local HISTORY_MS = 2592000000 -- 30 days
local DELTAS_KEPT = 1000 -- characters: some 30 ids; a repeat comes within 150 ms

local function text(number) return string.format('%.0f', number) end

local real_clock, now = ARGV[1] == '', nil
if real_clock then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(ARGV[1])
end

local FIELDS = { 'generation', 'changed', 'cause', 'until', 'by_hand', 'buckets', 'streak', 'probe', 'lease', 'deltas' }
local row = redis.call('HMGET', KEYS[2], unpack(FIELDS))
local s = {}
for i, field in ipairs(FIELDS) do s[field] = row[i] or '' end
local generation = tonumber(s.generation) or 0
local ends = tonumber(s['until']) or 0
local dirty = false

-- Told in the same step as it is made. A key that is no list, when an operator was creative, costs the telling alone.
local function tell(cause, phase, until_us)
  redis.pcall('LPUSH', KEYS[3], table.concat({ text(generation), text(now), cause, phase, text(until_us) }, ' '))
  redis.pcall('LTRIM', KEYS[3], 0, CHANGES_KEPT - 1)
  redis.pcall('PEXPIRE', KEYS[3], text(HISTORY_MS))
end

local function change(cause, phase, until_us)
  generation = generation + 1
  s.changed, s.cause = text(now), cause
  s['until'], s.by_hand, s.buckets, s.streak, s.probe, s.lease = '0', '', '', '0', '', '0'
  ends, dirty = 0, true
  tell(cause, phase, until_us)
end

local function close(cause)
  change(cause, 'closed', 0)
  redis.call('DEL', KEYS[1])
end

local function open(cause, open_for)
  change(cause, 'open', now + open_for)
  ends = now + open_for
  s['until'] = text(ends)
  redis.call('SET', KEYS[1], s['until'], 'PXAT', text(math.ceil(ends / 1000)))
end

-- What did time and operators do to it? (seen)
local value = redis.pcall('GET', KEYS[1]) -- of another type, when an operator was creative: an error, so not ours
local phase
if value and ends > 0 and value == s['until'] and s.by_hand == '' then
  phase = (real_clock or now < ends) and 'open' or 'half_open'
elseif value then
  if s.by_hand == '' then
    change('operator', 'open', 0)
    s.by_hand = '1'
  end
  local left = redis.call('PTTL', KEYS[1])
  ends = left > 0 and now + left * 1000 or now + UNKNOWN_US
  phase = 'open'
elseif s.by_hand ~= '' or (ends > 0 and now < ends) then
  change('operator', 'closed', 0)
  phase = 'closed'
else
  phase = ends > 0 and 'half_open' or 'closed'
end

local function counted(outcomes, failures)
  local number = math.floor(now / math.floor(tonumber(ARGV[10]) / BUCKETS))
  local kept = {}
  local all, bad = outcomes, failures
  for at, n, f in string.gmatch(s.buckets, '(%d+):(%d+):(%d+)') do
    at, n, f = tonumber(at), tonumber(n), tonumber(f)
    if at == number then
      outcomes, failures = outcomes + n, failures + f
      all, bad = all + n, bad + f
    elseif at >= number - BUCKETS and at < number then
      kept[#kept + 1] = text(at) .. ':' .. text(n) .. ':' .. text(f)
      all, bad = all + n, bad + f
    end
  end
  kept[#kept + 1] = text(number) .. ':' .. text(outcomes) .. ':' .. text(failures)
  s.buckets, dirty = table.concat(kept, ' '), true
  return all, bad
end

local function first_time(delta)
  if string.find(s.deltas, ' ' .. delta .. ' ', 1, true) then return false end
  s.deltas = string.sub(s.deltas, -DELTAS_KEPT) .. ' ' .. delta .. ' '
  return true
end

local step, granted = ARGV[2], '0'
if step == 'count' then
  if phase == 'closed' and generation == tonumber(ARGV[3]) and first_time(ARGV[13]) then
    local all, bad = counted(tonumber(ARGV[4]), tonumber(ARGV[5]))
    local streak = tonumber(ARGV[7]) + (ARGV[6] == '1' and 0 or tonumber(s.streak) or 0)
    s.streak = text(streak)
    if streak >= tonumber(ARGV[11]) then
      open('connect_failures', tonumber(ARGV[12]))
      phase = 'open'
    elseif all >= tonumber(ARGV[9]) and bad >= tonumber(ARGV[8]) * all then
      open('failure_rate', tonumber(ARGV[12]))
      phase = 'open'
    end
  end
elseif step == 'probe' then
  if phase == 'closed' then
    granted = '1'
  elseif phase == 'half_open' and (s.probe == '' or s.probe == ARGV[3] or now >= tonumber(s.lease)) then
    s.probe, s.lease, dirty, granted = ARGV[3], text(now + tonumber(ARGV[4])), true, '1'
  end
elseif step == 'judge' then
  if phase == 'half_open' and generation == tonumber(ARGV[4]) then
    if ARGV[5] == 'alive' then
      close('probe_succeeded')
      phase = 'closed'
    elseif s.probe == ARGV[3] and ARGV[5] == 'failed' then
      open('probe_failed', tonumber(ARGV[6]))
      phase = 'open'
    elseif s.probe == ARGV[3] then
      s.probe, s.lease, dirty = '', '0', true
    end
  end
elseif step == 'open' then
  open('operator', tonumber(ARGV[3]))
  phase = 'open'
elseif step == 'close' then
  close('operator')
  phase = 'closed'
end

if dirty then
  s.generation = text(generation)
  local pairs_ = {}
  for _, field in ipairs(FIELDS) do
    pairs_[#pairs_ + 1] = field
    pairs_[#pairs_ + 1] = s[field]
  end
  redis.call('HSET', KEYS[2], unpack(pairs_))
  redis.call('PEXPIRE', KEYS[2], text(math.max(KEPT_MS, (ends - now) / 1000 + KEPT_MS)))
end

return {
  phase, text(ends), text(generation), s.changed, s.cause, s.buckets, s.streak, granted, s.probe, s.lease,
  s.by_hand, text(now),
}
