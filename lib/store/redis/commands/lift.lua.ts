import { CLOCK } from './includes/clock.lua.js';
import { GENERATION } from './includes/generation.lua.js';
import { READ } from './includes/read.lua.js';

export const LIFT = `
-- Takes a writer's token out of each generation. A generation without another live token gets a value never used before.
-- KEYS: generations. ARGV: [1] the token, [2] the nonce, [3] the TTL in ms of the new value.
-- Returns a character for each key:
--   '1'  the token stood until now
--   '0'  the token was gone; a generation at the key is bumped all the same, since a reader may have minted and filled it
--        during the commit; a missing generation stays missing, and a foreign value is deleted, as in bump.lua.ts
-- Atomic, so that a generation comes back only in the same step that finds no other writer at work.
-- A server that is out of memory refuses SET. The script then deletes a generation, which is as good (bump.lua.ts), and
-- leaves a quarantine that other writers need as it is; this token stays in it until it lapses.
${GENERATION}
${READ}
${CLOCK}
local now = clockMs()
local replies = {}
local absent
for i, key in ipairs(KEYS) do
  local value = read(key)
  if not value then
    absent = key
  end
  local n, tokens = parse(value)
  local reply = '0'
  if n then
    local others = {}
    local latest = 0
    for token, at in string.gmatch(tokens or '', '([%w_-]+)@(%d+)') do
      if tonumber(at) > now then
        if token == ARGV[1] then
          reply = '1'
        else
          others[#others + 1] = token .. '@' .. at
          latest = math.max(latest, tonumber(at))
        end
      end
    end
    if #others > 0 then
      redis.pcall('SET', key, n .. '!' .. table.concat(others, ','), 'KEEPTTL')
      redis.call('PEXPIREAT', key, string.format('%.0f', latest))
    else
      local wanted = tonumber(ARGV[3])
      if not tokens then
        wanted = math.max(wanted, redis.call('PTTL', key))
      end
      local fresh = string.format('%.0f', tonumber(n) + 1) .. '.' .. ARGV[2]
      if redis.pcall('SET', key, fresh, 'PX', wanted).err then
        redis.call('DEL', key)
      end
    end
  elseif value then
    redis.call('UNLINK', key)
  end
  replies[i] = reply
end
-- As in bump.lua.ts: this write fails on a primary that became a replica, which may lack a quarantine.
if absent then
  redis.call('DEL', absent)
end
return table.concat(replies)
`;
