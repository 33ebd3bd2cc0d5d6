-- expired: stamp the shard; which calls have a lease that ended, if that proves anything now?
-- KEYS  life holds   ARGV  now run most
local now, run = clock(ARGV[1]), ARGV[2]
also_when_full(KEYS[2])
local life, stamp, quiet = shard(KEYS[1], call('GET', KEYS[1]), run, now)
stamp, quiet = beat(KEYS[1], life, stamp, quiet, now)
if not trusted(stamp, quiet, now) then return {} end
return call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[3])
