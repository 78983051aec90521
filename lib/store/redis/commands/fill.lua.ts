import { CLOCK } from './includes/clock.lua.js';
import { READ } from './includes/read.lua.js';

export const FILL = `
-- Stores entries unless a generation that guards them moved.
-- KEYS: the guards, which are generations, then the entries, then their leases if there is a token.
-- ARGV: [1] the number of guards, [2] the token of the leases, '' without one, [3] the instant from which TTLs count, by
-- this server's clock; then for each guard its generation and the TTL in ms that it needs; then for each entry its bytes,
-- its TTL in ms, and the numbers of its guards, from 1, separated by commas.
-- Returns a character for each entry, and this server's clock in ms: '1' filled, '0' a guard moved, 'x' the entry's key has
-- another type, 'e' its TTL is over.
-- Atomic, so that a bump comes either before the check, which refuses the fill, or after the fill, and orphans it; and so
-- that a lease is free only once the entry is there.
-- A command may wait for long in the buffers of a server that was stopped, so a TTL counts from the instant. If the
-- server's clock went back since, it counts from now.
-- A guard with less than half of its TTL left gets the whole TTL again. A guard stands if its value equals that
-- generation, byte for byte, so the script parses nothing.
${READ}
${CLOCK}
local guards = tonumber(ARGV[1])
local token = ARGV[2]
local entries = #KEYS - guards
if token ~= '' then
  entries = entries / 2
end
local now = clockMs()
local from = math.min(now, tonumber(ARGV[3]))
local stands = {}
for i = 1, guards do
  local value = read(KEYS[i])
  stands[i] = value == ARGV[2 * i + 2]
  if stands[i] then
    local ttl = tonumber(ARGV[2 * i + 3])
    if redis.call('PTTL', KEYS[i]) < ttl / 2 then
      redis.call('PEXPIRE', KEYS[i], ttl)
    end
  end
end
local function store(key, bytes, ttl)
  local type_ = redis.call('TYPE', key).ok
  if type_ ~= 'none' and type_ ~= 'string' then
    return 'x'
  end
  local expires = from + tonumber(ttl)
  if expires <= now then
    return 'e'
  end
  redis.call('SET', key, bytes, 'PXAT', string.format('%.0f', expires))
  return '1'
end
local replies = {}
local arg = 2 * guards + 4
for i = 1, entries do
  local moved = false
  for guard in string.gmatch(ARGV[arg + 2], '%d+') do
    moved = moved or not stands[tonumber(guard)]
  end
  replies[i] = moved and '0' or store(KEYS[guards + i], ARGV[arg], ARGV[arg + 1])
  if token ~= '' and read(KEYS[guards + entries + i]) == token then
    redis.call('DEL', KEYS[guards + entries + i])
  end
  arg = arg + 3
end
return { table.concat(replies), now }
`;
