import { describe } from '../../errors/describe.js';
import { recordEvents } from '../../knex/outbox/record.js';
import { nearestScope } from '../../model/path.js';
import { PublishedCaches } from '../../knex/outbox/published-caches.js';
import { describeMisspelling, findCacheNames, looksMisspelt, misspellingRemedy } from '../cache-names.js';
import { type Command, FAILED, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_OPTION, DATABASE_OPTIONS } from '../option.js';
import { UsageError } from '../usage-error.js';

export const bumpCommand: Command = {
  words: ['bump'],
  summary: 'Records a bump of global, or of scopes, in the outbox, for a relay',
  needs: '--cache NAME',
  options: {
    cache: CACHE_OPTION,
    path: {
      value: 'PATH',
      multiple: true,
      help: 'a scope, root first: detector=42/environment=7; default: global, which covers every entry',
    },
    ...DATABASE_OPTIONS,
  },
  about:
    'The command needs PostgreSQL alone: a relay bumps after the commit, within its lag. Ids are written as in keys: every\n' +
    'character but letters, digits, "_", "." and "-" is percent-encoded, and null is ~.',
  example: 'gencache bump --cache shop --path customer=42',
  run: (args, terminal) => {
    const cache = args.cache();
    const paths = args.texts('path').map(checkedPath);
    return withDatabase(args, terminal, async ({ db, outbox }) => {
      const names = await findCacheNames(db, cache, outbox);
      // Without a relay for the name its events would wait for ever.
      if (looksMisspelt(names) && !names.relayed) {
        terminal.err(`Nothing was recorded: ${describeMisspelling(cache, names)}. ${misspellingRemedy(names)}`);
        return FAILED;
      }
      const published = await PublishedCaches.read(db, outbox);
      const faults = paths.map((path) => published.pathFault(cache, path)).filter((fault) => fault !== undefined);
      if (faults.length > 0) {
        for (const { message, remedy } of faults) terminal.err(`Nothing was recorded: ${message} ${remedy}`);
        return FAILED;
      }
      const scopes = paths.length === 0 ? [''] : [...new Set(paths)];
      const event = { cache, source: 'gencache bump', operation: 'bump' };
      await recordEvents(
        db,
        scopes.map((path) => ({ ...event, path })),
        outbox,
      );
      const relay = names.relayed
        ? 'A running relay bumps them now.'
        : `No relay has ever run for this cache: run \`gencache relay --cache ${cache}\`.`;
      terminal.out(`Bumps recorded for ${cache}: ${scopes.map((path) => path || 'global').join(', ')}. ${relay}`);
      return OK;
    });
  },
};

/** For an invalid path a relay would bump the nearest valid ancestor, and keep a dead letter. */
function checkedPath(path: string): string {
  if (nearestScope(path) === path) return path;
  throw new UsageError(
    `--path must be a scope, namespaces with their ids, root first (detector=42/environment=7), but got ${describe(path)}. ` +
      'Percent-encode every character of an id but letters, digits, "_", "." and "-"; leave --path out for global.',
  );
}
