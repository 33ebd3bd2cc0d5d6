-- seal: begin to seed a shard that is closed. From here on, spent counts only what is settled after `last`, and nobody
-- but the holder of the seal moves events to SQL; so: spent = what SQL says once it has everything up to `last`, plus
-- the counter.
-- KEYS  life seeded seeding events | budget*
-- ARGV  now run token lock-ms group
-- Answers the last entry of the stream, or nothing: open already, or sealed by somebody else.
call('PERSIST', KEYS[1])   -- lets the rest run when Redis is full
local life = shard(KEYS[1], call('GET', KEYS[1]), ARGV[2], clock(ARGV[1]))
if call('GET', KEYS[2]) == life then return false end
local holder = call('GET', KEYS[3])
if holder and holder ~= ARGV[3] then return false end
call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
if call('EXISTS', KEYS[4]) == 1 then call('XGROUP', 'DESTROY', KEYS[4], ARGV[5]) end
for i = 5, #KEYS do
  if call('EXISTS', KEYS[i]) == 1 then call('HSET', KEYS[i], 'spent', '0') end
end
local last = call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if last then return last[1] end
return '0-0'
