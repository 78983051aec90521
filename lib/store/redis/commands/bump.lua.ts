export const BUMP = `
-- Gives each existing generation a value never used before: one bump more, and this attempt's nonce.
-- KEYS: generations. ARGV: [1] the nonce, [2] the TTL in ms that each keeps at least; 0 leaves it as it is.
-- Returns, for each key (of a single key without an array, which takes longer), its bumps so far; -1 where there is no
-- generation, and none is written; -2 where something else is, which is left alone; -3 where writers' tokens are, '<n>!<token>@<lapses at>,...': they stay, and n counts up.
-- Atomic, so that of two bumps at once neither is lost and both are counted.
-- A server that is out of memory refuses SET but not DEL: a generation that is gone is minted anew by whoever needs
-- it, which is as good as a bump (0 is returned). An invalidation must not fail for want of memory.
-- Written for speed: a pattern match and a string.format cost as much as a call of redis. Of several keys all are read
-- by one call; it shows what is no string as nothing, so that is looked at again.
local attempt = '.' .. ARGV[1]
local wanted = tonumber(ARGV[2])
local bumps = {}
local absent
local values
if #KEYS > 1 then
  values = redis.call('MGET', unpack(KEYS))
end
for i = 1, #KEYS do
  local key = KEYS[i]
  local value = values and values[i]
  if not value then
    value = redis.pcall('GET', key)
  end
  if not value then
    bumps[i] = -1
    absent = key
  else
    -- '<n>.<nonce>', the nonce of 16 characters
    local first, dot
    if type(value) == 'string' and #value <= 32 then
      first, dot = string.find(value, '^%d+%.')
    end
    if not first or #value - dot ~= 16 or string.find(value, '[^%w_-]', dot + 1) then
      bumps[i] = -2
      local n, tokens = string.match(type(value) == 'string' and value or '', '^(%d+)!(.+)$')
      local one = ',' .. string.rep('[%w_-]', 16) .. '@%d+'
      if n and #n <= 15 and string.gsub(',' .. tokens, one, '') == '' then
        local latest = 0
        for at in string.gmatch(tokens, '@(%d+)') do
          latest = math.max(latest, tonumber(at))
        end
        -- Out of memory it stays as it was: nothing old can be read there.
        redis.pcall('SET', key, string.format('%.0f', tonumber(n) + 1) .. '!' .. tokens, 'KEEPTTL')
        redis.call('PEXPIREAT', key, string.format('%.0f', latest))
        bumps[i] = -3
      end
    else
      local n = tonumber(string.sub(value, 1, dot - 1))
      local set
      if wanted > 0 and redis.call('PTTL', key) < wanted then
        set = redis.pcall('SET', key, (n + 1) .. attempt, 'PX', wanted)
      else
        set = redis.pcall('SET', key, (n + 1) .. attempt, 'KEEPTTL')
      end
      if set.err then
        redis.call('DEL', key)
        n = -1
      end
      bumps[i] = n + 1
    end
  end
end
-- A primary made a replica may lack a generation that the new primary has: there, this write fails, and so the bump.
if absent then
  redis.call('DEL', absent)
end
return #KEYS == 1 and bumps[1] or bumps
`;
