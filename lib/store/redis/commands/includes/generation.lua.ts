/**
 * The one parser of a generation's value, for every script that takes it apart. `parse(value)` returns two things:
 *
 *     '<n>.<nonce>'                       n as text, nil
 *     '<n>!<token>@<lapses at>,...'       n as text, the text behind the '!'
 *     any other value, or no string       nil
 *
 * n has 1 to 15 digits; a nonce and a token have 16 base64url characters; the instants are in ms by the server's clock.
 *
 * `string.find` and lengths test the first form, without captures: almost every bump meets it, and a pattern with
 * captures costs as much as a call of Redis.
 */
export const GENERATION = `
local find = string.find
local function parse(value)
  if type(value) ~= 'string' then
    return nil
  end
  local _, dot = find(value, '^%d+%.')
  if dot then
    if dot <= 16 and #value - dot == 16 and not find(value, '[^%w_-]', dot + 1) then
      return string.sub(value, 1, dot - 1)
    end
    return nil
  end
  local n, tokens = string.match(value, '^(%d+)!(.+)$')
  if not n or #n > 15 then
    return nil
  end
  local one = ',' .. string.rep('[%w_-]', 16) .. '@%d+'
  if string.gsub(',' .. tokens, one, '') ~= '' then
    return nil
  end
  return n, tokens
end`;
