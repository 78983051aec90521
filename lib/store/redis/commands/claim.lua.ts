import { CLOCK } from './includes/clock.lua.js';
import { READ } from './includes/read.lua.js';

export const CLAIM = `
-- Takes the lease of each entry that is to be loaded and that no other process loads.
-- KEYS: the guards, which are generations, then the entries, then their leases, in the order of the entries.
-- ARGV: [1] the number of guards, [2] the holder's token, '' to look only, [3] the lease's TTL in ms; then each guard's
-- generation; then for each entry the first bytes of the value that is to be replaced, '' for none, and the numbers of its
-- guards, from 1, separated by commas.
-- Returns a character for each entry, and this server's clock in ms:
--   'y' the caller holds the lease now    'o' the lease is free, and the caller only looks
--   'h' another process holds the lease   'f' the entry is there, with another value than the one to be replaced
--   'm' a guard moved                     'x' load without a lease: the last holder's load failed, the entry's key or the
--                                             lease's has another type, or there is no room for a lease
-- Atomic, so that a caller that missed before another process filled does not take the lease that the fill released.
${READ}
${CLOCK}
local guards = tonumber(ARGV[1])
local entries = (#KEYS - guards) / 2
local stands = {}
for i = 1, guards do
  stands[i] = read(KEYS[i]) == ARGV[3 + i]
end
local function take(key, lease, seen)
  local type_ = redis.call('TYPE', key).ok
  if type_ == 'string' then
    if seen == '' or string.sub(read(key), 1, #seen) ~= seen then
      return 'f'
    end
  elseif type_ ~= 'none' then
    return 'x'
  end
  local holder = read(lease)
  if holder == '!failed' or type(holder) == 'table' then
    return 'x'
  elseif holder then
    return 'h'
  elseif ARGV[2] == '' then
    return 'o'
  end
  local set = redis.pcall('SET', lease, ARGV[2], 'PX', ARGV[3])
  if set.err and string.find(set.err, 'OOM', 1, true) then
    return 'x'
  elseif set.err then
    return redis.call('SET', lease, ARGV[2], 'PX', ARGV[3])
  end
  return 'y'
end
local replies = {}
local arg = 4 + guards
for i = 1, entries do
  local moved = false
  for guard in string.gmatch(ARGV[arg + 1], '%d+') do
    moved = moved or not stands[tonumber(guard)]
  end
  replies[i] = moved and 'm' or take(KEYS[guards + i], KEYS[guards + entries + i], ARGV[arg])
  arg = arg + 2
end
return { table.concat(replies), clockMs() }
`;
