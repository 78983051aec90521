import { nearestScope } from '../../knex/outbox/resolve-events.js';
import { recordEvents } from '../../knex/outbox/record.js';
import { describe } from '../../errors/describe.js';
import { CACHE, UsageError } from '../arguments.js';
import { type Command, FAILED, OK } from '../command.js';
import { CHECK_NAME, findCacheNames, looksMisspelt, misspelt } from '../cache-names.js';
import { DATABASE, withDatabase } from '../servers.js';

export const bump: Command = {
  words: ['bump'],
  summary: 'Records a bump in the outbox, for a relay: of everything, or of scopes',
  needs: '--cache NAME',
  options: {
    cache: CACHE,
    path: {
      value: 'PATH',
      multiple: true,
      help: 'a scope, root first: detector=42/environment=7; default: global, which is everything',
    },
    ...DATABASE,
  },
  about:
    'Asks PostgreSQL alone: a relay does the bump, after the commit, within its lag. Ids are as in keys: what is not a\n' +
    'letter, a digit, "_", "." or "-" is percent-encoded, and null is ~.',
  example: 'gencache bump --cache shop --path customer=42',
  run: (args, terminal) => {
    const cache = args.cache();
    const paths = args.texts('path').map(checked);
    return withDatabase(args, terminal, {}, async ({ db, outbox }) => {
      const names = await findCacheNames(db, cache, outbox);
      // An event under a name that nobody relays would wait for ever.
      if (looksMisspelt(names) && !names.relayed) {
        terminal.err(`A bump is recorded for a cache that relays know: ${misspelt(cache, names)}. ${CHECK_NAME}`);
        return FAILED;
      }
      const scopes = paths.length === 0 ? [''] : [...new Set(paths)];
      const event = { cache, source: 'gencache bump', operation: 'bump' };
      await recordEvents(
        db,
        scopes.map((path) => ({ ...event, path })),
        outbox,
      );
      const then = names.relayed
        ? 'A relay that runs bumps it now.'
        : `No relay has ever run for it: \`gencache relay --cache ${cache}\`.`;
      terminal.out(`Recorded for ${cache}: ${scopes.map((path) => path || 'global').join(', ')}. ${then}`);
      return OK;
    });
  },
};

/** A relay would bump the scope above one that does not parse, and set it aside. */
function checked(path: string): string {
  if (nearestScope(path) === path) return path;
  throw new UsageError(
    `--path is a scope, namespaces with their ids, root first: detector=42/environment=7. Got ${describe(path)}. ` +
      'Percent-encode what an id has beside letters, digits, "_", "." and "-"; leave it out for everything.',
  );
}
