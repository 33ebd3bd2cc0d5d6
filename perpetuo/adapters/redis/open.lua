-- open: add what SQL says was spent, and open the shard's budgets.
-- KEYS  life seeded seeding | budget*   ARGV  now run token | sum*
call('PERSIST', KEYS[1])   -- lets the rest run when Redis is full
local life = shard(KEYS[1], call('GET', KEYS[1]), ARGV[2], clock(ARGV[1]))
if call('GET', KEYS[2]) == life then return 1 end
if call('GET', KEYS[3]) ~= ARGV[3] then return 0 end
for i = 4, #KEYS do
  call('HINCRBY', KEYS[i], 'spent', ARGV[i])
  if call('PTTL', KEYS[i]) == -1 then call('PEXPIRE', KEYS[i], ms(40 * DAY)) end
end
call('SET', KEYS[2], life)
call('DEL', KEYS[3])
return 1
