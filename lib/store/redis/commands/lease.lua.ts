import { READ } from './includes/read.lua.js';

export const LEASE = `
-- Extends leases, or marks them as failed, which still have their holder's token.
-- KEYS: leases. ARGV: [1] the holder's token, [2] the TTL in ms; 0 marks the leases as failed for the rest of their TTL.
-- Atomic, so that a holder that was suspended changes no lease of its successor.
-- A server without room for the mark deletes the lease: there no process can take one.
${READ}
for i = 1, #KEYS do
  if read(KEYS[i]) == ARGV[1] then
    if ARGV[2] ~= '0' then
      redis.call('PEXPIRE', KEYS[i], ARGV[2])
    elseif redis.pcall('SET', KEYS[i], '!failed', 'KEEPTTL').err then
      redis.call('DEL', KEYS[i])
    end
  end
end
return 1
`;
