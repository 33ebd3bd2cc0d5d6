-- raises_back: put raises back that Redis has lost, and those ended that it does not know to have ended.
-- KEYS  raises   ARGV  run | (id value)*
-- What is there stays; only an end wins over what it ends.
for i = 2, #ARGV, 2 do
  local ended = string.match(ARGV[i + 1], '^%d+ %-$')
  if ended or not redis.call('HGET', KEYS[1], ARGV[i]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local n = string.match(redis.call('HGET', KEYS[1], 'v') or '', ' (%d+)$') or 0
redis.call('HSET', KEYS[1], 'v', ARGV[1] .. ' ' .. (n + 1))
return 1
