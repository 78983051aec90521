import { CLOCK } from './includes/clock.lua.js';
import { READ } from './includes/read.lua.js';
import { IDENTITY } from './includes/identity.lua.js';

export const RENEW = `
-- Extends freshness keys if this server still has the incarnation that the caller checked, and the same mark.
-- KEYS: [1] the mark, then the freshness keys, whose names end in ':' and their bound in ms.
-- ARGV: [1] the mark that must stand, [2] the incarnation that must run this, [3] a nonce, [4] the mark's TTL in ms,
-- [5] the instant at which the check began; then for each freshness key the instant at which it expires. Instants are in
-- ms by this server's clock.
-- Returns 1 renewed, 0 another mark or a missing mark, -1 another server or a replica.
-- Atomic, so that no key is extended after a repair, a demotion or a restart that this call has not seen.
-- An instant in the past changes nothing: PXAT would delete the key, and with it another relay's renewal. An instant
-- further away than the bound comes from before the clock went back, so it changes nothing either; a key that expires
-- further away than its bound is cut to the instant given.
${READ}
${CLOCK}
${IDENTITY}
if not isServer(ARGV[2]) then
  return -1
end
if read(KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local now = clockMs()
-- The clock went back since the check began, so the caller's instants do not belong to it.
if now < tonumber(ARGV[5]) then
  return 1
end
local own = ARGV[2] .. ' '
for i = 2, #KEYS do
  local key = KEYS[i]
  local untilMs = tonumber(ARGV[i + 4])
  local furthest = now + tonumber(string.match(key, ':(%d+)$'))
  if untilMs > now and untilMs <= furthest then
    local expires = 0
    local value = read(key)
    if type(value) == 'string' and string.sub(value, 1, #own) == own then
      expires = now + redis.call('PTTL', key)
    end
    if untilMs > expires or expires > furthest then
      redis.call('SET', key, own .. ARGV[3], 'PXAT', string.format('%.0f', untilMs))
    end
  end
end
return 1
`;
