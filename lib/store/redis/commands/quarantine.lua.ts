import { CLOCK } from './includes/clock.lua.js';
import { GENERATION } from './includes/generation.lua.js';
import { READ } from './includes/read.lua.js';

export const QUARANTINE = `
-- Puts a writer's token into each generation's own value, '<n>!<token>@<lapses at>,...', which destroys the generation.
-- KEYS: generations. ARGV: [1] the token, [2] the time in ms until it lapses.
-- Returns the number of keys that already held the live token. A foreign value, of any type, counts as a missing one.
-- Atomic, so that two writers at once both keep their tokens, and no reader fills under a generation between its last
-- read here and its end. A key expires with the latest of its tokens; lapsed tokens are dropped.
${GENERATION}
${READ}
${CLOCK}
local now = clockMs()
local lapses = now + tonumber(ARGV[2])
local held = 0
for _, key in ipairs(KEYS) do
  local bumps, tokens = parse(read(key))
  local latest = lapses
  local value = (bumps or '0') .. '!' .. ARGV[1] .. '@' .. string.format('%.0f', lapses)
  for token, at in string.gmatch(tokens or '', '([%w_-]+)@(%d+)') do
    if tonumber(at) > now then
      if token == ARGV[1] then
        held = held + 1
      else
        value = value .. ',' .. token .. '@' .. at
        latest = math.max(latest, tonumber(at))
      end
    end
  end
  redis.call('SET', key, value, 'PXAT', string.format('%.0f', latest))
end
return held
`;
