-- extend: grow a hold to `whole` if every budget still allows it, and renew the call's leases.
-- KEYS  holds call life seeded | inflight* | budget* | [idem]
-- ARGV  now run id whole admitted_in lease #inflight #budgets | limit* | [lease ttl fence]
-- Answers the hold as it is now, or a list: why it did not grow.
local now, run, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local nc, nb = tonumber(ARGV[7]), tonumber(ARGV[8])
local kb = 4 + nc
also_when_full(KEYS[1])
local found = call('MGET', KEYS[3], KEYS[2])
local life = shard(KEYS[3], found[1], run, now)
local record = found[2]
local state, amount = seen(record, now)
if state ~= 'H' then
  if not state and ARGV[5] ~= life then return {'unseeded'} end
  return {'cancelled'}
end
local whole = tonumber(ARGV[4])
local more = whole - tonumber(amount)
if more > 0 then
  local limited = false
  for i = 1, nb do limited = limited or ARGV[8 + i] ~= '' end
  if limited and call('GET', KEYS[4]) ~= life then return {'unseeded'} end
  for i = 1, nb do
    if ARGV[8 + i] ~= '' then
      local w = call('HMGET', KEYS[kb + i], 'spent', 'held')
      local limit, spent = tonumber(ARGV[8 + i]), tonumber(w[1] or '0')
      if limit - spent - tonumber(w[2] or '0') < more then
        local reserved = 0
        if spent + whole <= limit then reserved = 1 end
        return {'budget', i, w[1] or '0', w[2] or '0', reserved}
      end
    end
  end
  move(KEYS, kb, nb, '0', text(more))
  amount = text(whole)
  call('SET', KEYS[2], (string.gsub(record, '^H 0 %d+', 'H 0 ' .. amount, 1)))
end
local idem = KEYS[kb + nb + 1]
renew(KEYS[1], id, tonumber(ARGV[6]), now, KEYS, 4, nc)
if idem then renew_claim(idem, id, ARGV[8 + nb + 3], ARGV[8 + nb + 1], ARGV[8 + nb + 2], now) end
return amount
