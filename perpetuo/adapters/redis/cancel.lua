-- cancel: undo an admission for which nothing was sent; one that has not arrived yet never will.
-- KEYS  holds call life events | inflight* | rate* | (current following)* | [idem]
-- ARGV  now run id #inflight #rates #budgets | boundary*
local now, run, id = clock(ARGV[1]), ARGV[2], ARGV[3]
local nc, nr, nb = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local kr = 4 + nc
local kb = kr + nr
also_when_full(KEYS[1])
local found = call('MGET', KEYS[3], KEYS[2])
shard(KEYS[3], found[1], run, now)
local record = found[2]
local state, amount, _, at, fence = seen(record, now)
if state == 'T' then
  call('ZREM', KEYS[1], id)
  return 0
end
if state then
  local spent, held = '0', minus(amount)
  if state == 'R' then spent, held = held, '0' end
  local windows = {}
  for i = 1, nb do
    windows[i] = KEYS[kb + 2 * i - 1]
    if tonumber(at) >= tonumber(ARGV[6 + i]) then windows[i] = KEYS[kb + 2 * i] end
  end
  move(windows, 0, nb, spent, held)
  for i = 1, nc do call('ZREM', KEYS[4 + i], id) end
  for i = 1, nr do call('LREM', KEYS[kr + i], 1, at) end
  local idem = KEYS[kb + 2 * nb + 1]
  if state == 'R' then
    call('XADD', KEYS[4], '*', 'e', row_of(record), 'r', 2, 'h', '0')
  elseif idem and ours(idem, id, fence, now) then
    free(idem, fence, now)
  end
end
bury(KEYS[2], TOMBSTONE, now, 0, 1)
call('ZREM', KEYS[1], id)
return 1
