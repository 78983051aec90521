import type { Redis } from 'ioredis';
import { explainError } from '../explain-error.js';
import { broken, type Finding, ok } from './finding.js';

const PROBE = `
-- Returns the refusal of TIME, and of INFO, as scripts of a cache and a relay run them; '' for a command that is allowed.
local replies = {}
for i, reply in ipairs({ redis.pcall('TIME'), redis.pcall('INFO', 'server') }) do
  replies[i] = type(reply) == 'table' and reply.err or ''
end
return replies
`;

/**
 * Whether the commands that a host may lack are there, as far as a look changes nothing. INFO inside scripts matters on a
 * server that tells its incarnation. Two commands.
 */
export async function checkCommands(
  redis: Redis,
  incarnation: string | undefined,
): Promise<{ readonly findings: readonly Finding[]; readonly runsScripts: boolean }> {
  const refusalOf = (command: Promise<unknown>) =>
    command.then(
      () => '',
      (error: unknown) => explainError(error),
    );
  const time = await refusalOf(redis.time());
  let scripts = '';
  let timeInScripts = '';
  let infoInScripts = '';
  try {
    [timeInScripts, infoInScripts] = (await redis.eval(PROBE, 0)) as [string, string];
  } catch (error) {
    scripts = explainError(error);
  }
  const refused = [
    { refusal: scripts, what: 'scripts are refused', cost: 'nothing is stored or bumped', right: 'EVAL and EVALSHA' },
    {
      ...{ refusal: timeInScripts, what: 'TIME is refused in scripts', right: 'TIME, also inside scripts' },
      cost: 'nothing is stored, no strict commit is made, and no relay keeps a bound',
    },
    { refusal: time, what: 'TIME is refused', cost: 'no relay bumps there', right: 'TIME' },
    {
      ...{
        refusal: incarnation === undefined ? '' : infoInScripts,
        what: 'INFO is refused in scripts',
        right: 'INFO, also inside scripts',
      },
      cost: 'no relay bumps there',
    },
  ].filter(({ refusal }) => refusal !== '');
  const findings = refused.map(({ refusal, what, cost, right }) =>
    broken('Redis commands', `${what}: ${cost} (${refusal})`, `Let the user run ${right}.`),
  );
  return {
    findings:
      findings.length > 0 ? findings : [ok('Redis commands', 'scripts, and TIME and INFO inside them, are allowed')],
    runsScripts: scripts === '' && timeInScripts === '',
  };
}
