import { READ } from './includes/read.lua.js';

export const BEAT = `
-- Sends a beat: a key whose push shows that pushes arrive. Tells how long the store is known to be fresh.
-- KEYS: [1] this beat, [2] the beat before it, [3] the freshness key, if the cache has a bound. ARGV: [1] the TTL of a beat
-- in ms.
-- Returns { 1 if the beat before it is still there, the freshness key's value or false, its TTL in ms }. Without a freshness
-- key the last two are false and 0.
-- Atomic, so that the push of this beat follows every change that the freshness key covers.
${READ}
local before = redis.call('PTTL', KEYS[2]) > 0 and 1 or 0
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
local value = KEYS[3] and read(KEYS[3])
if type(value) ~= 'string' then
  return { before, false, 0 }
end
return { before, value, redis.call('PTTL', KEYS[3]) }
`;
