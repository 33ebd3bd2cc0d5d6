-- raise: put a raise of a budget, or its early end, and append the event that tells of it: once.
-- KEYS  raises events   ARGV  id value event
-- A value is "<until> <JSON>", or "<until> -" when it was ended. `v` is "<run> <n>"; without it nobody has yet looked
-- whether SQL knows of others. Answers 1, or 0: it was so before.
local key, id, value = KEYS[1], ARGV[1], ARGV[2]
local found = redis.call('HGET', key, id)
if found and (found == value or string.match(found, '^%d+ %-$') or not string.match(value, '^%d+ %-$')) then return 0 end
redis.call('HSET', key, id, value)
redis.call('XADD', KEYS[2], '*', 'e', ARGV[3], 'r', 1)
local run, n = string.match(redis.call('HGET', key, 'v') or '', '^(%S+) (%d+)$')
if run then redis.call('HSET', key, 'v', run .. ' ' .. (n + 1)) end
local seconds = redis.call('TIME')[1]
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local ends = tonumber(string.match(fields[i + 1], '^(%d+) '))
  if fields[i] ~= 'v' and ends / 1000000 + 3600 < seconds + 0 then redis.call('HDEL', key, fields[i]) end
end
return 1
