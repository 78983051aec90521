import { READ } from './includes/read.lua.js';

export const FILL = `
-- Stores entries unless a generation that guards them moved.
-- KEYS: the guards, which are generations, then the entries.
-- ARGV: [1] the number of guards; then for each guard its generation and the TTL in ms that it needs; then for each
-- entry its bytes, its TTL in ms, and the numbers of its guards, from 1, separated by commas.
-- Returns a character for each entry: '1' filled, '0' a guard moved, 'x' the entry's key has another type.
-- Atomic, so that a bump comes either before the check, which refuses the fill, or after the fill, and orphans it.
-- A guard with less than half of its TTL left gets the whole TTL again. A guard stands if its value equals that
-- generation, byte for byte, so the script parses nothing.
${READ}
local guards = tonumber(ARGV[1])
local stands = {}
for i = 1, guards do
  local value = read(KEYS[i])
  stands[i] = value == ARGV[2 * i]
  if stands[i] then
    local ttl = tonumber(ARGV[2 * i + 1])
    if redis.call('PTTL', KEYS[i]) < ttl / 2 then
      redis.call('PEXPIRE', KEYS[i], ttl)
    end
  end
end
local replies = {}
local arg = 2 * guards + 2
for i = guards + 1, #KEYS do
  local reply = '1'
  for guard in string.gmatch(ARGV[arg + 2], '%d+') do
    if not stands[tonumber(guard)] then
      reply = '0'
    end
  end
  if reply == '1' then
    if redis.call('TYPE', KEYS[i]).ok == 'none' or redis.call('TYPE', KEYS[i]).ok == 'string' then
      redis.call('SET', KEYS[i], ARGV[arg], 'PX', ARGV[arg + 1])
    else
      reply = 'x'
    end
  end
  replies[#replies + 1] = reply
  arg = arg + 3
end
return table.concat(replies)
`;
