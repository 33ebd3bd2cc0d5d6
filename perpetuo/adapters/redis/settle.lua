-- settle: release the hold, charge, keep the answer, append the event: once per call.
-- KEYS  holds call life events | inflight* | budget* | [idem answers kept]
-- ARGV  now run id charge event admitted_in #inflight #budgets | resets* | [keep fence fingerprint ttl head body share call]
-- keep: S store (it is small enough), M mark as done, F free; share: most bytes the tenant may have kept.
-- Answers {stored, revision, repeated, spent, held, …}.
local now, run, id, charge = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local nc, nb = tonumber(ARGV[7]), tonumber(ARGV[8])
local kb = 4 + nc
also_when_full(KEYS[1])

-- The answer of a call that was over before.
local function repeated(stored, revision)
  call('ZREM', KEYS[1], id)
  local answer = {stored, revision, 1}
  for i = 1, nb do
    local w = call('HMGET', KEYS[kb + i], 'spent', 'held')
    answer[2 + 2 * i], answer[3 + 2 * i] = w[1] or '0', w[2] or '0'
  end
  return answer
end

-- Drop answers whose time is over from the tenant's account; returns what is left, in bytes.
local function kept_bytes(answers, kept)
  local total = tonumber(call('GET', kept) or '0')
  local gone = call('ZRANGEBYSCORE', answers, '-inf', text(now))
  for _, member in ipairs(gone) do
    total = total - tonumber(string.match(member, ':(%d+)$'))
    call('ZREM', answers, member)
  end
  if #gone > 0 then call('SET', kept, text(total), 'KEEPTTL') end
  return total
end

local function finish(idem, answers, kept, a)
  local keep, fence, ttl, body = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 4]), ARGV[a + 6]
  if not ours(idem, id, fence, now) then return 0 end
  if keep == 'F' then
    free(idem, fence, now)
    return 0
  end
  local fits, total = false, 0
  if keep == 'S' then
    total = kept_bytes(answers, kept) + #body
    fits = total <= tonumber(ARGV[a + 7])
  end
  local expires = text(now + ttl)
  call('DEL', idem)
  if not fits then
    call('HSET', idem, 'st', 'N', 'fp', ARGV[a + 3], 'fence', fence, 'exp', expires)
    call('PEXPIRE', idem, ms(ttl))
    return 0
  end
  call('HSET', idem, 'st', 'D', 'fp', ARGV[a + 3], 'fence', fence, 'exp', expires, 'head', ARGV[a + 5], 'body', body,
    'call', ARGV[a + 8])
  call('PEXPIRE', idem, ms(ttl))
  call('ZADD', answers, expires, string.match(idem, '[^:]*$') .. ':' .. #body)
  call('SET', kept, text(total), 'KEEPTTL')
  for _, key in ipairs({answers, kept}) do
    if call('PTTL', key) < ttl / 1000 then call('PEXPIRE', key, ms(ttl)) end
  end
  return 1
end

local found = call('MGET', KEYS[3], KEYS[2])
local life = shard(KEYS[3], found[1], run, now)
local record = found[2]
local state, amount, admitted_in, at = seen(record, now)
if state == 'T' then
  local stored, revision = string.match(record, '^T %d+ (%d) (%d)')
  return repeated(tonumber(stored), tonumber(revision))
end
local held, spent, stored, revision = '0', charge, 0, 1
if state == 'H' then
  held = minus(amount)
  if KEYS[kb + nb + 1] then
    stored = finish(KEYS[kb + nb + 1], KEYS[kb + nb + 2], KEYS[kb + nb + 3], 8 + nb)
  end
elseif state == 'R' then
  spent, revision = text(tonumber(charge) - tonumber(amount)), 2
elseif ARGV[6] == life then
  return repeated(0, 1)
else
  admitted_in = ARGV[6]
end

local answer = {stored, revision, 0}
for i, amount_then in ipairs(move(KEYS, kb, nb, spent, held)) do answer[3 + i] = amount_then end
if not state then
  for i = 1, nb do outlive(KEYS[kb + i], tonumber(ARGV[8 + i]), now) end
end
call('XADD', KEYS[4], '*', 'e', ARGV[5], 'r', revision)
bury(KEYS[2], span_over(admitted_in, life), now, stored, revision)
for i = 1, nc do call('ZREM', KEYS[4 + i], id) end
call('ZREM', KEYS[1], id)
return answer
