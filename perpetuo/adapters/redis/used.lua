-- used: what many scopes of a shard use, each by four keys; what uses nothing is left out.
-- KEYS  (day month rate inflight)*
-- ARGV  now window
-- Answers one text: "place day month admitted inflight" for each, with spaces between; money is spent and held.
local now, window = clock(ARGV[1]), tonumber(ARGV[2])
local answer = {}
local function money(key)
  local w = call('HMGET', key, 'spent', 'held')
  return tonumber(w[1] or '0') + tonumber(w[2] or '0')
end
for i = 1, #KEYS, 4 do
  local day, month, calls, alive = money(KEYS[i]), money(KEYS[i + 1]), 0, 0
  if call('EXISTS', KEYS[i + 2], KEYS[i + 3]) > 0 then
    calls = admitted(KEYS[i + 2], now, window)
    alive = call('ZCOUNT', KEYS[i + 3], '(' .. text(now), '+inf')
  end
  if day > 0 or month > 0 or calls > 0 or alive > 0 then
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = (i - 1) / 4, text(day), text(month)
    answer[n + 4], answer[n + 5] = calls, alive
  end
end
return table.concat(answer, ' ')
