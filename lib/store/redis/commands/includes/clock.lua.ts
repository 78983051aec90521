/** `clockMs()`: this server's clock, in whole ms, rounded down. */
export const CLOCK = `
local function clockMs()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end`;
