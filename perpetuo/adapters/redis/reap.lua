-- reap: settle a call whose lease has ended, at its hold.
-- KEYS  holds call life events | inflight* | budget*
-- ARGV  now run id #inflight #budgets
-- Answers what was charged, or nothing: alive, over, or not to be judged now.
local now, run, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local nc, nb = tonumber(ARGV[4]), tonumber(ARGV[5])
also_when_full(KEYS[1])
local _, stamp, quiet = shard(KEYS[3], call('GET', KEYS[3]), run, now)
local ending = tonumber(call('ZSCORE', KEYS[1], id) or nil)
if not ending or now < ending or not trusted(stamp, quiet, now) then return false end
local record = call('GET', KEYS[2])
local state, amount = seen(record, now)
if state ~= 'H' then
  call('ZREM', KEYS[1], id)
  return false
end
move(KEYS, 4 + nc, nb, amount, minus(amount))
call('XADD', KEYS[4], '*', 'e', row_of(record), 'r', 1, 'h', amount)
local reaped = string.gsub(record, '^H 0', 'R ' .. text(now + DAY), 1)
call('SET', KEYS[2], reaped, 'PX', ms(DAY))
for i = 1, nc do call('ZREM', KEYS[4 + i], id) end
call('ZREM', KEYS[1], id)
return amount
