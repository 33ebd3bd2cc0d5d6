-- usage: admissions in the last minute and calls in flight of scopes, and the money of windows, as they stand now.
-- KEYS  (rate inflight)* | (current following)*
-- ARGV  now #scopes #budgets window | boundary*
-- Answers {now, (admitted, oldest leaves in, in flight)*, (spent, held)*}.
local now, ns, nb, window = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answer = {text(now)}
local function add(value) answer[#answer + 1] = value end
for i = 1, ns do
  local rate = KEYS[2 * i - 1]
  local high = admitted(rate, now, window)
  add(high)
  if high > 0 then add(text(tonumber(call('LINDEX', rate, high - 1)) + window - now)) else add('0') end
  add(call('ZCOUNT', KEYS[2 * i], '(' .. text(now), '+inf'))
end
for i = 1, nb do
  local key = KEYS[2 * ns + 2 * i - 1]
  if now >= tonumber(ARGV[4 + i]) then key = KEYS[2 * ns + 2 * i] end
  local w = call('HMGET', key, 'spent', 'held')
  add(w[1] or '0')
  add(w[2] or '0')
end
return answer
