import { READ } from './read.lua.js';

/** `freshness(key)`: the value of a freshness key and its TTL in ms; false and 0 without one. */
export const FRESHNESS_OF = `
${READ}
local function freshness(key)
  local value = read(key)
  if type(value) ~= 'string' then
    return false, 0
  end
  return value, redis.call('PTTL', key)
end`;
