import { READ } from './includes/read.lua.js';

export const MINT = `
-- Gives each missing generation a value.
-- KEYS: generations. ARGV: [1] the generation to give, [2] its TTL in ms.
-- Returns for each key the value that now stands, which may be a quarantine; '' for a key of another type.
-- Atomic, so that two processes that mint the same generation both get the first one's generation.
-- The caller parses the values: it needs them whole.
${READ}
local values = {}
for i, key in ipairs(KEYS) do
  local value = read(key)
  if type(value) == 'table' then
    value = ''
  elseif not value then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    value = ARGV[1]
  end
  values[i] = value
end
return values
`;
