/**
 * `read(key)`: the string at a key, or false without one. For a key of another type it returns a table; any other error,
 * such as that of a user who may not GET, is raised: it says nothing of the value.
 */
export const READ = `
local function read(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' and not string.find(value.err, 'WRONGTYPE', 1, true) then
    return redis.call('GET', key)
  end
  return value
end`;
