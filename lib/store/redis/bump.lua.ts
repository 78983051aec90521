export const BUMP = `
-- Gives each existing generation a value never used before: one bump more, and this attempt's nonce.
-- KEYS: generations. ARGV: [1] the nonce, [2] the TTL in ms that each keeps at least.
-- Returns, for each key, its bumps so far; -1 where there is no generation, and none is written; -2 where something
-- else is, which is left alone.
-- Atomic, so that of two bumps at once neither is lost and both are counted.
-- A server that is out of memory refuses SET but not DEL: a generation that is gone is minted anew by whoever needs
-- it, which is as good as a bump (0 is returned). An invalidation must not fail for want of memory.
local GENERATION = '^(%d+)%.' .. string.rep('[%w_-]', 16) .. '$'
local bumps = {}
for i, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if not value then
    bumps[i] = -1
  else
    local n = type(value) == 'string' and #value <= 32 and value:match(GENERATION)
    if not n then
      bumps[i] = -2
    else
      local ttl = math.max(tonumber(ARGV[2]), redis.call('PTTL', key))
      local next = tonumber(n) + 1
      local set = redis.pcall('SET', key, string.format('%.0f.%s', next, ARGV[1]), 'PX', ttl)
      if set.err then
        redis.call('DEL', key)
        next = 0
      end
      bumps[i] = next
    end
  end
end
return bumps
`;
