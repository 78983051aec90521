/**
 * The one parser of a generation's value, for every script that takes it apart. `parse(value)` returns two things:
 *
 *     '<n>.<nonce>'                       n as text, nil
 *     '<n>!<token>@<lapses at>,...'       n as text, the text behind the '!'
 *     any other value, or no string       nil
 *
 * n has 1 to 15 digits; a nonce and a token have 16 base64url characters; the instants are in ms by the server's clock.
 *
 * One pattern and two lengths test the first form, which almost every bump meets: a pattern costs as much as half a call
 * of Redis.
 */
export const GENERATION = `
local function parse(value)
  if type(value) ~= 'string' then
    return nil
  end
  local count = string.match(value, '^(%d+)%.[%w_-]+$')
  if count then
    return #count <= 15 and #value - #count == 17 and count or nil
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
