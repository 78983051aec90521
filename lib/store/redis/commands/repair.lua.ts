import { GENERATION } from './includes/generation.lua.js';
import { READ } from './includes/read.lua.js';
import { IDENTITY } from './includes/identity.lua.js';

export const REPAIR = `
-- Bumps the global generation, and writes the mark, which says that no earlier bump is missing.
-- KEYS: [1] the global generation, [2] the mark.
-- ARGV: [1] the mark, [2] the mark's TTL in ms, [3] the incarnation that must run this, [4] a nonce, [5] the TTL in ms
-- that the generation keeps at least.
-- Returns 1; or 0 on another server or on a replica, and then nothing is written.
-- Atomic, so that every mark stands on a server whose global generation was bumped under the mark's incarnation.
-- As in bump.lua.ts, a missing generation and writers' tokens stay, and a foreign value is deleted.
${IDENTITY}
${GENERATION}
${READ}
if not isServer(ARGV[3]) then
  return 0
end
local value = read(KEYS[1])
local n, tokens = parse(value)
if value and not n then
  redis.call('UNLINK', KEYS[1])
elseif n and not tokens then
  local ttl = math.max(tonumber(ARGV[5]), redis.call('PTTL', KEYS[1]))
  local fresh = string.format('%.0f', tonumber(n) + 1) .. '.' .. ARGV[4]
  if redis.pcall('SET', KEYS[1], fresh, 'PX', ttl).err then
    redis.call('DEL', KEYS[1])
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
`;
