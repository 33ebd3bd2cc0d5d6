-- How many admissions of a log are in the window at `now`. It is kept newest first, so this is a binary search.
local function admitted(rate, now, window)
  local length = call('LLEN', rate)
  if length == 0 then return 0 end
  local at = math.max(now, tonumber(call('LINDEX', rate, 0)))
  local low, high = -1, length
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if tonumber(call('LINDEX', rate, middle)) > at - window then low = middle else high = middle end
  end
  return high
end
