-- renew: stamp the shard and renew the leases of many of its calls.
-- KEYS  life seeded holds | (call inflight* [idem])*
-- ARGV  now run | (id lease admitted_in #inflight claimed [lease ttl fence])*
-- Answers {are the budgets open, then for each call: 0 fine, 1 reaped meanwhile, 2 lost}.
local now, run = clock(ARGV[1]), ARGV[2]
also_when_full(KEYS[3])
local life, stamp, quiet = shard(KEYS[1], call('GET', KEYS[1]), run, now)
beat(KEYS[1], life, stamp, quiet, now)
local answer = {0}
if call('GET', KEYS[2]) == life then answer[1] = 1 end
local k, a = 4, 3
while a <= #ARGV do
  local id, nc, claimed = ARGV[a], tonumber(ARGV[a + 3]), ARGV[a + 4] == '1'
  local state = seen(call('GETRANGE', KEYS[k], 0, 120), now)
  local status = 0
  if state == 'H' then
    renew(KEYS[3], id, tonumber(ARGV[a + 1]), now, KEYS, k, nc)
    if claimed then renew_claim(KEYS[k + nc + 1], id, ARGV[a + 7], ARGV[a + 5], ARGV[a + 6], now) end
  elseif state == 'R' then
    status = 1
  elseif not state and ARGV[a + 2] ~= life then
    status = 2
  end
  answer[#answer + 1] = status
  k, a = k + 1 + nc, a + 5
  if claimed then k, a = k + 1, a + 3 end
end
return answer
