import { GENERATION } from './includes/generation.lua.js';
import { IDENTITY } from './includes/identity.lua.js';

export const REPAIR = `
-- Bumps the global generation, and writes the mark which says that no bump from before is missing.
-- KEYS: [1] the global generation, [2] the mark.
-- ARGV: [1] the mark, [2] its TTL in ms, [3] the incarnation that must run this, [4] a nonce, [5] the TTL in ms that the
-- generation keeps at least.
-- Returns 1; 0 where another server runs this, or one that is not a primary, and then nothing is done.
-- Atomic, so that no mark ever stands on a server whose global generation was not bumped under that incarnation.
-- As bump.lua.ts: a missing generation stays missing, writers' tokens stay, what is foreign stays, and is not read.
${IDENTITY}
${GENERATION}
if not isServer(ARGV[3]) then
  return 0
end
local n, tokens = parse(redis.pcall('GET', KEYS[1]))
if n and not tokens then
  local ttl = math.max(tonumber(ARGV[5]), redis.call('PTTL', KEYS[1]))
  local fresh = string.format('%.0f', tonumber(n) + 1) .. '.' .. ARGV[4]
  if redis.pcall('SET', KEYS[1], fresh, 'PX', ttl).err then
    redis.call('DEL', KEYS[1])
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
`;
