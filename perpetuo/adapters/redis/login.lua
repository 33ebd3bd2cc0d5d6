-- login: an exact log of attempts.   KEYS  log   ARGV  now limit window
-- Answers 0 and counts the attempt, or how long to wait.
local now, limit, window = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = math.max(now, tonumber(call('LINDEX', KEYS[1], 0) or '0'))
local edge = tonumber(call('LINDEX', KEYS[1], limit - 1) or nil)
if edge and at - edge < window then return text(edge + window - now) end
call('LPUSH', KEYS[1], text(at))
call('LTRIM', KEYS[1], 0, limit - 1)
call('PEXPIRE', KEYS[1], ms(window))
return '0'
