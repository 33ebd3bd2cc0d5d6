-- note: keep refusals in their minute's hash, as long as it has room for more.
-- KEYS  hash   ARGV  ttl-s most (field note)*
-- Answers how many it has.
local room = tonumber(ARGV[2]) - redis.call('HLEN', KEYS[1])
for i = 3, #ARGV, 2 do
  if room <= 0 then break end
  room = room - redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return tonumber(ARGV[2]) - room
