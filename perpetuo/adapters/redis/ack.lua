-- ack: SQL has these events; acknowledge and delete in one step.   KEYS  events   ARGV  group entry…
local group = table.remove(ARGV, 1)
redis.call('XDEL', KEYS[1], unpack(ARGV))
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('XACK', KEYS[1], group, unpack(ARGV)) end
return #ARGV
