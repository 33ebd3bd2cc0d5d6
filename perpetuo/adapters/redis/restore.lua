-- restore: put back a call in flight that Redis has lost: record, hold and leases, and its key unless it is taken.
-- KEYS  holds call life | inflight* | budget* | [idem]
-- ARGV  now run id amount admitted_in at fence answer scopes event lease #inflight #budgets | resets*
--       | [fingerprint ttl lease]
local now, run, id, amount = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local nc, nb = tonumber(ARGV[12]), tonumber(ARGV[13])
local kb = 3 + nc
also_when_full(KEYS[1])
local life = shard(KEYS[3], call('GET', KEYS[3]), run, now)
if seen(call('GET', KEYS[2]), now) or ARGV[5] == life then return 0 end
move(KEYS, kb, nb, '0', amount)
call('SET', KEYS[2], 'H 0 ' .. amount .. ' ' .. ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. ARGV[7] .. '\n'
  .. ARGV[8] .. '\n' .. ARGV[9] .. '\n' .. ARGV[10])
local ending = text(now + tonumber(ARGV[11]))
for i = 1, nc do
  call('ZREMRANGEBYSCORE', KEYS[3 + i], '-inf', text(now))
  call('ZADD', KEYS[3 + i], ending, id)
end
for i = 1, nb do outlive(KEYS[kb + i], tonumber(ARGV[13 + i]), now) end
call('ZADD', KEYS[1], ending, id)
local idem = KEYS[kb + nb + 1]
if idem then
  local expires = call('HGET', idem, 'exp')
  if not expires or now >= tonumber(expires) then
    if expires then call('DEL', idem) end
    local a = 13 + nb
    claim(idem, id, ARGV[a + 1], ARGV[7], tonumber(ARGV[a + 3]), tonumber(ARGV[a + 2]), now)
  end
end
return 1
