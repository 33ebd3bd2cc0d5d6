-- sealed: keep the seal, and read events up to `last`.   KEYS  seeding events   ARGV  token lock-ms last most
-- Answers nothing when the seal is somebody else's by now.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('XRANGE', KEYS[2], '-', ARGV[3], 'COUNT', ARGV[4])
