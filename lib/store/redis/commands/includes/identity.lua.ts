/** `isServer(incarnation)`: whether the server that runs the script is a primary and has this incarnation. */
export const IDENTITY = `
local function isServer(incarnation)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local replication = redis.call('INFO', 'replication')
  local role = string.match(replication, 'role:(%w+)')
  local replid = string.match(replication, 'master_replid:(%w+)')
  return role == 'master' and run and replid and run .. '.' .. replid == incarnation
end`;
