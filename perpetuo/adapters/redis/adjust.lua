-- adjust: change what was spent in windows, and append the event that tells of it: once per id, in all or in none.
-- The policy is perpetuo/domain/policy/adjustment.py.
-- KEYS  call life seeded events | budget*   ARGV  now run amount event room | ends*
-- Answers {'done' or 'repeated', (spent held, or '' '' where the window no longer counts)*}, {'uncovered', i, spent, held},
-- {'unseeded'} or {'no_room'}.
local MOST_CHARGED = 9000000 * 1000000000   -- just below 2^53
local now, amount = clock(ARGV[1]), ARGV[3]
local found = call('MGET', KEYS[2], KEYS[1], KEYS[3])
local life = shard(KEYS[2], found[1], ARGV[2], now)
local known = seen(found[2], now)

-- {spent, held} of each window; nothing of one that is over and whose counter is gone (rule 4).
local money, counted = {}, {}
for i = 1, #KEYS - 4 do
  local ends = tonumber(ARGV[5 + i])
  if now < ends or (now < ends + WINDOW_KEPT and call('EXISTS', KEYS[4 + i]) == 1) then
    local w = call('HMGET', KEYS[4 + i], 'spent', 'held')
    money[i], counted[#counted + 1] = {w[1] or '0', w[2] or '0'}, i
  end
end

local function answer(word)
  local all = {word}
  for i = 1, #KEYS - 4 do
    local w = money[i] or {'', ''}
    all[2 * i], all[2 * i + 1] = w[1], w[2]
  end
  return all
end

if known then return answer('repeated') end
if ARGV[5] == '0' then return {'no_room'} end
if found[3] ~= life then return {'unseeded'} end
local windows = {}
for n, i in ipairs(counted) do
  local sum = tonumber(money[i][1]) + tonumber(amount)
  if sum < 0 or sum > MOST_CHARGED then return {'uncovered', i, money[i][1], money[i][2]} end
  windows[n] = KEYS[4 + i]
end
for n, sum in ipairs(move(windows, 0, #windows, amount, '0')) do
  money[counted[math.ceil(n / 2)]][2 - n % 2] = sum
end
for _, i in ipairs(counted) do outlive(KEYS[4 + i], tonumber(ARGV[5 + i]), now) end
call('XADD', KEYS[4], '*', 'e', ARGV[4], 'r', 1)
bury(KEYS[1], DAY, now, 0, 1)
return answer('done')
