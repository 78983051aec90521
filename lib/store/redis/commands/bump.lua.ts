import { GENERATION } from './includes/generation.lua.js';
import { READ } from './includes/read.lua.js';

export const BUMP = `
-- Gives each existing generation a value never used before: one bump more, and the nonce of this attempt.
-- KEYS: generations. ARGV: [1] the nonce, [2] the TTL in ms that each keeps at least; 0 leaves the TTL as it is.
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
local attempt = '.' .. ARGV[1]
-- The generations of a command stand at few different numbers, so each text is made once.
local counts, texts = {}, {}
local pcall = redis.pcall
local wanted = tonumber(ARGV[2])
local bumps = {}
local absent
local values
if #KEYS > 1 then
  values = redis.call('MGET', unpack(KEYS))
end
for i = 1, #KEYS do
  local key = KEYS[i]
  local value = values and values[i] or read(key)
  local n, tokens = parse(value)
  if not value then
    bumps[i] = -1
    absent = key
  elseif not n then
    redis.call('UNLINK', key)
    bumps[i] = -2
  elseif tokens then
    local latest = 0
    for at in string.gmatch(tokens, '@(%d+)') do
      latest = math.max(latest, tonumber(at))
    end
    -- Out of memory the value stays as it was: readers bypass it either way.
    redis.pcall('SET', key, string.format('%.0f', tonumber(n) + 1) .. '!' .. tokens, 'KEEPTTL')
    redis.call('PEXPIREAT', key, string.format('%.0f', latest))
    bumps[i] = -3
  else
    local bumped = counts[n]
    if not bumped then
      bumped = tonumber(n) + 1
      counts[n] = bumped
      texts[bumped] = bumped .. attempt
    end
    local set
    if wanted > 0 and redis.call('PTTL', key) < wanted then
      set = pcall('SET', key, texts[bumped], 'PX', wanted)
    else
      set = pcall('SET', key, texts[bumped], 'KEEPTTL')
    end
    if set.err then
      redis.call('DEL', key)
      bumped = 0
    end
    bumps[i] = bumped
  end
end
-- A primary that became a replica may lack a generation that the new primary has. There this write fails, so the
-- caller learns that its bump did not happen.
if absent then
  redis.call('DEL', absent)
end
return #KEYS == 1 and bumps[1] or bumps
`;
