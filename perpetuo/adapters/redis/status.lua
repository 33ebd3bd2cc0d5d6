-- status: are the shard's budgets open?   KEYS  life seeded   ARGV  now run
call('PERSIST', KEYS[1])   -- lets the rest run when Redis is full
local life = shard(KEYS[1], call('GET', KEYS[1]), ARGV[2], clock(ARGV[1]))
if call('GET', KEYS[2]) == life then return 1 end
return 0
