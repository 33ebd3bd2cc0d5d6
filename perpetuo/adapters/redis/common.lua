-- Shared by all scripts of the ledger; the policy they follow to the letter is perpetuo/domain/policy/admission.py.
--
-- Rule 1: only keys passed in KEYS are touched, all of one hash tag: works on a cluster.
-- Rule 2: times (µs) and money (nano-USD) stay below 2^53, where a Lua number is exact; `..` would round them to
--         14 digits, so they leave through `text`, and are added with HINCRBY.
-- Rule 3: TTLs only tidy up. What has expired is decided by comparing with `now`, which a test may pass.
-- Rule 4: what ends a call takes its id out of `holds` last: failing half-way, it is still there to be ended again.
--
-- A call's record, `perpetuo:{sNN}:call:<id>`, one string:
--   H 0 <amount> <life> <at> <fence>\n<what admit answered>\n<scopes, JSON>\n<row if abandoned, JSON>    in flight
--   R <expires> <charge> <life> <at> <fence>\n…                                                         reaped
--   T <expires> <stored 0|1> <revision>                                                                 over
local call = redis.call
local TOMBSTONE, DAY, LEASE, GAP = 60000000, 86400000000, 30000000, 10000000
local WINDOW_KEPT = 48 * 3600000000

local function text(number) return string.format('%.0f', number) end

local function ms(span) return text(math.ceil(span / 1000)) end

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

-- The shard's life: which run of Redis its data belongs to, and since when. A new one begins when the key is gone
-- (data lost, FLUSHALL) or names another run (restart, failover). `found` is what the key holds:
-- "<life> <stamp or -> <quiet until>". Returns the life's name and the pulse.
local function shard(key, found, run, now)
  local life, stamp, quiet
  if found then life, stamp, quiet = string.match(found, '^(%S+) (%S+) (%d+)') end
  if not life or string.sub(life, 1, #run) ~= run then
    life, stamp, quiet = run .. '-' .. text(now), stamp or '-', quiet or '0'
    call('SET', key, life .. ' ' .. stamp .. ' ' .. quiet)
  end
  return life, tonumber(stamp), tonumber(quiet)
end

-- Stamp the shard; a gap since the last stamp begins a quiet lease. Returns the pulse as it is now.
local function beat(key, life, stamp, quiet, now)
  if not stamp or now - stamp > GAP then quiet = now + LEASE end
  stamp = math.max(now, stamp or now)
  call('SET', key, life .. ' ' .. text(stamp) .. ' ' .. text(quiet))
  return stamp, quiet
end

local function trusted(stamp, quiet, now)
  return stamp and now - stamp <= GAP and now >= quiet
end

-- The parts of a call's record, or nil when there is none or its time is over.
local function seen(record, now)
  if not record or record == '' then return nil end
  local state, expires, amount, life, at, fence = string.match(record, '^(%u) (%d+) (%d+) (%S+) ?(%d*) ?(%d*)')
  if state ~= 'H' and now >= tonumber(expires) then return nil end
  return state, amount, life, at, fence
end

local function bury(key, span, now, stored, revision)
  call('SET', key, 'T ' .. text(now + span) .. ' ' .. stored .. ' ' .. revision, 'PX', ms(span))
end

-- How long a call is remembered that is over: longer when its record may have been lost before (see calls.py).
local function span_over(admitted_in, life)
  if admitted_in == life then return TOMBSTONE end
  return DAY
end

local function minus(amount)
  if amount == '0' then return '0' end
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end

-- Move money in the windows keys[k + 1] … keys[k + n]: in all of them, or the script fails and it is in none (a counter
-- that is no number, or would pass 2^63). Returns {spent, held, …} as text.
local function move(keys, k, n, spent, held)
  local answer, moved = {}, {}
  local function add(key, field, amount)
    local sum = redis.pcall('HINCRBY', key, field, amount)
    if type(sum) == 'table' then
      for _, one in ipairs(moved) do call('HINCRBY', one[1], one[2], minus(one[3])) end
      error(sum.err)
    end
    moved[#moved + 1], answer[#answer + 1] = {key, field, amount}, text(sum)
  end
  for i = 1, n do
    add(keys[k + i], 'spent', spent)
    add(keys[k + i], 'held', held)
  end
  return answer
end

-- Is this run still the one that holds the idempotency key?
local function ours(key, id, fence, now)
  local c = call('HMGET', key, 'st', 'call', 'fence', 'exp')
  return c[1] == 'R' and c[2] == id and c[3] == fence and now < tonumber(c[4])
end

local function claim(key, id, fingerprint, fence, lease, ttl, now)
  local ending = now + lease
  local expires = ending + math.max(ttl, DAY)
  call('HSET', key, 'st', 'R', 'fp', fingerprint, 'fence', fence, 'call', id, 'lease', text(ending), 'exp', text(expires))
  call('PEXPIRE', key, ms(expires - now))
end

local function free(key, fence, now)
  call('DEL', key)
  call('HSET', key, 'st', 'F', 'fence', fence, 'exp', text(now + TOMBSTONE))
  call('PEXPIRE', key, ms(TOMBSTONE))
end

-- Let a window's key live as long as one that an admission made.
local function outlive(key, ends, now)
  if call('PTTL', key) == -1 then call('PEXPIRE', key, ms(math.max(ends - now, 0) + WINDOW_KEPT)) end
end

-- The row a call would leave if abandoned: everything after the third line break of its record.
local function row_of(record)
  return string.match(record, '^[^\n]*\n[^\n]*\n[^\n]*\n(.*)$')
end

-- Renew a call's leases, never to an earlier end; KEYS[k + 1] … KEYS[k + nc] are its scopes.
local function renew(holds, id, lease, now, keys, k, nc)
  local ending = math.max(now + lease, tonumber(call('ZSCORE', holds, id) or '0'))
  call('ZADD', holds, text(ending), id)
  for i = 1, nc do call('ZADD', keys[k + i], 'GT', text(ending), id) end
end

local function renew_claim(key, id, fence, lease, ttl, now)
  if ours(key, id, fence, now) then
    claim(key, id, call('HGET', key, 'fp'), fence, tonumber(lease), tonumber(ttl), now)
  end
end

-- Redis refuses writes when it is full, unless the script has already made one that frees memory, or might. What
-- ends or keeps up a call must go on then; only admission stops.
local function also_when_full(holds) call('ZREM', holds, '') end
