import { GENERATION } from './includes/generation.lua.js';
import { READ } from './includes/read.lua.js';

export const BUMP = `
-- Gives each existing generation a value never used before: one bump more, and the nonce of this attempt.
-- KEYS: generations. ARGV: [1] the nonce, [2] the TTL in ms that a generation gets with less than half of it left; 0
-- leaves the TTL as it is.
-- Returns a number for each key, or, of a single key, the number itself, since an array takes longer:
--   n >= 0  the generation now stands at n bumps
--   -1      the generation is missing, and nothing is written
--   -2      the key held a foreign value, of any type, which is deleted: readers of a release that knows its form would
--           hit under it
--   -3      the key holds writers' tokens, '<n>!<token>@<lapses at>,...': they stay, and n counts up
-- Atomic, so that two bumps at once both count, and neither overwrites the other's value.
-- A server that is out of memory refuses SET and allows DEL. A deleted generation is minted anew by its next reader,
-- which is as good as a bump, so the script deletes it and returns 0: an invalidation never fails for want of memory.
-- One MGET reads several keys. It shows a key of another type as missing, so a missing key is read again on its own.
${GENERATION}
${READ}
local half = ARGV[2] / 2
local absent
local function bump(key, value)
  local n, tokens = parse(value)
  if not value then
    absent = key
    return -1
  end
  if not n then
    redis.call('UNLINK', key)
    return -2
  end
  if tokens then
    local latest = 0
    for at in string.gmatch(tokens, '@(%d+)') do
      latest = math.max(latest, tonumber(at))
    end
    -- Out of memory the value stays as it was: readers bypass it either way.
    redis.pcall('SET', key, string.format('%.0f', n + 1) .. '!' .. tokens, 'KEEPTTL')
    redis.call('PEXPIREAT', key, string.format('%.0f', latest))
    return -3
  end
  local bumped = n + 1
  local set
  if half > 0 and redis.call('PTTL', key) < half then
    set = redis.pcall('SET', key, bumped .. '.' .. ARGV[1], 'PX', ARGV[2])
  else
    set = redis.pcall('SET', key, bumped .. '.' .. ARGV[1], 'KEEPTTL')
  end
  if set.err then
    redis.call('DEL', key)
    return 0
  end
  return bumped
end
local bumps
if #KEYS == 1 then
  bumps = bump(KEYS[1], read(KEYS[1]))
else
  local values = redis.call('MGET', unpack(KEYS))
  bumps = {}
  for i, key in ipairs(KEYS) do
    bumps[i] = bump(key, values[i] or read(key))
  end
end
-- A primary that became a replica may lack a generation that the new primary has. There this write fails, so the
-- caller learns that its bump did not happen.
if absent then
  redis.call('DEL', absent)
end
return bumps
`;
