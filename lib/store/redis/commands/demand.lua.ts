import { CLOCK } from './includes/clock.lua.js';
import { READ } from './includes/read.lua.js';

export const DEMAND = `
-- Notes that readers ask for a bound, and tells when a relay was last there.
-- KEYS: [1] the demands, '<bound>@<asked at>,...', [2] the mark. ARGV: [1] the bound in ms, [2] the time in ms for which
-- a demand stands, [3] the mark's TTL in ms without renewals. Instants are in ms by this server's clock.
-- Returns the instant of the mark's last renewal as text; '' without a mark. A value of another form is replaced.
-- Atomic, so that readers of two bounds at once are both noted.
${READ}
${CLOCK}
local now = clockMs()
local value = ARGV[1] .. '@' .. string.format('%.0f', now)
local demands = read(KEYS[1])
if type(demands) == 'string' then
  for bound, at in string.gmatch(demands, '(%d+)@(%d+)') do
    if bound ~= ARGV[1] and tonumber(at) > now - tonumber(ARGV[2]) and tonumber(at) <= now then
      value = value .. ',' .. bound .. '@' .. at
    end
  end
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
local left = redis.call('PTTL', KEYS[2])
return left > 0 and string.format('%.0f', now + left - tonumber(ARGV[3])) or ''
`;
