import { FRESHNESS_OF } from './includes/freshness.lua.js';

export const BEAT = `
-- Sends a beat: a key whose push shows that pushes arrive. Tells how long the store is known to be fresh.
-- KEYS: [1] this beat, [2] the beat before it, [3] the freshness key, if the cache has a bound. ARGV: [1] the TTL of a beat
-- in ms, then one key of each further partition that this server should have (KEYS of several slots would be refused).
-- Returns { 1 if the beat before it is still there, the freshness key's value or false, its TTL in ms }, then for each further
-- key { its value or false, its TTL in ms }, or false if this server does not serve its slot. Without a freshness key the
-- second and third are false and 0.
-- Atomic, so that the push of this beat follows every change that the freshness keys cover.
${FRESHNESS_OF}
local before = redis.call('PTTL', KEYS[2]) > 0 and 1 or 0
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
local reply = { before, false, 0 }
if KEYS[3] then
  reply = { before, freshness(KEYS[3]) }
end
for i = 2, #ARGV do
  local isServed = type(redis.pcall('PTTL', ARGV[i])) == 'number'
  reply[#reply + 1] = isServed and { freshness(ARGV[i]) }
end
return reply
`;
