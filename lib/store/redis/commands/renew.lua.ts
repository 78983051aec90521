import { IDENTITY } from './includes/identity.lua.js';

export const RENEW = `
-- Extends freshness keys, if this server is still who the caller checked, and no repair was lost or made since.
-- KEYS: [1] the mark, then the freshness keys, whose names end in ':' and their bound in ms.
-- ARGV: [1] the mark that must stand, [2] the incarnation that must run this, [3] a nonce, [4] the mark's TTL in ms,
-- [5] when the check began, in ms by this server's clock; then for each freshness key the instant, in ms by this server's clock, until which it may vouch.
-- Returns 1 renewed, 0 another mark or none, -1 another server, or not a primary.
-- Atomic, so that nothing is renewed after a repair, a demotion or a restart that this call has not seen.
-- An instant in the past changes nothing: PXAT would delete the key, and with it another relay's renewal. One further
-- away than the bound was reckoned before the clock went back; so was such an expiry, which is cut.
${IDENTITY}
if not isServer(ARGV[2]) then
  return -1
end
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Went back since the check began: what it reckoned is no instant of this clock.
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
    local value = redis.pcall('GET', key)
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
