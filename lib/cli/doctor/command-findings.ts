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
 * server that tells its incarnation. Two commands. Rejects where Redis does not answer.
 */
export async function checkCommands(
  redis: Redis,
  incarnation: string | undefined,
): Promise<{ readonly findings: readonly Finding[]; readonly runsScripts: boolean }> {
  const time = await refusalOf(redis.time());
  const probe = redis.eval(PROBE, 0) as Promise<[string, string]>;
  const scripts = await refusalOf(probe);
  const [timeInScripts, infoInScripts] = scripts === '' ? await probe : ['', ''];
  const findings = [
    ...refused(scripts, 'scripts are refused: nothing is stored or bumped', 'EVAL and EVALSHA'),
    ...refused(
      timeInScripts,
      'TIME is refused in scripts: nothing is stored, no strict commit is made, and no relay keeps a bound',
      'TIME, also inside scripts',
    ),
    ...refused(time, 'TIME is refused: no relay bumps there', 'TIME'),
    ...refused(
      incarnation === undefined ? '' : infoInScripts,
      'INFO is refused in scripts: no relay bumps there',
      'INFO, also inside scripts',
    ),
  ];
  const allowed = ok('Redis commands', 'scripts are allowed, and what they need inside');
  return {
    findings: findings.length > 0 ? findings : [allowed],
    runsScripts: scripts === '' && timeInScripts === '',
  };
}

/** The error with which Redis refuses a command; '' if it allows it. */
function refusalOf(command: Promise<unknown>): Promise<string> {
  return command.then(
    () => '',
    (error: Error) => {
      if (error.name !== 'ReplyError') throw error;
      return explainError(error);
    },
  );
}

function refused(refusal: string, message: string, right: string): Finding[] {
  return refusal === '' ? [] : [broken('Redis commands', `${message} (${refusal})`, `Let the user run ${right}.`)];
}
