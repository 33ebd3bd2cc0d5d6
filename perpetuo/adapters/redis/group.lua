-- group: make sure the shard's stream has its consumer group, and forget consumers long gone.
-- KEYS  events seeding   ARGV  group most-idle-ms
-- Answers 1, or 0 while the shard is sealed: then nobody may read.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('XDEL', KEYS[1], '0-1')   -- lets the rest run when Redis is full: draining is what makes room
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
  if facts.pending == 0 and facts.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts.name)
  end
end
return 1
