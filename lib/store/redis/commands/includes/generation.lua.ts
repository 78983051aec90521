/**
 * For scripts that take a generation's value apart, but for bump.lua.ts, which is written for speed: `parse(value)` returns
 * its bumps, as text, and its writers' tokens, nil if it has none; nothing for what is neither of the two forms.
 */
export const GENERATION = `
local function parse(value)
  if type(value) ~= 'string' then
    return nil
  end
  local n, nonce = string.match(value, '^(%d+)%.([%w_-]+)$')
  local tokens
  if not n or #nonce ~= 16 then
    n, tokens = string.match(value, '^(%d+)!(.+)$')
    local one = ',' .. string.rep('[%w_-]', 16) .. '@%d+'
    if n and string.gsub(',' .. tokens, one, '') ~= '' then
      return nil
    end
  end
  if n and #n <= 15 then
    return n, tokens
  end
end`;
