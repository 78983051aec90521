import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../../knex/outbox/location.js';
import { query } from '../../knex/postgres/query.js';
import { type Command, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_OPTION, DATABASE_OPTIONS } from '../option.js';

export const deadLettersRetryCommand: Command = {
  words: ['dead-letters', 'retry'],
  summary: 'Moves the dead letters of a cache back into the outbox, as new events',
  needs: '--cache NAME',
  options: { cache: CACHE_OPTION, ...DATABASE_OPTIONS },
  about:
    'Run it once the cause is gone: a lookup function exists again, a newer relay runs. An event that the relay still does\n' +
    'not understand becomes a dead letter again.',
  example: 'gencache dead-letters retry --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const moved = await retry(db, outbox, args.cache());
      terminal.out(moved === 0 ? 'There are no dead letters.' : `Dead letters moved back into the outbox: ${moved}.`);
      return OK;
    }),
};

/** One statement: an event is in one table or the other. It locks the rows, so a second caller finds none of them. */
async function retry(db: Knex, outbox: OutboxOptions, cache: string): Promise<number> {
  const at = qualifier(outbox);
  const rows = await query<{ moved: number }>(
    db,
    `with taken as (delete from ${at}gencache_dead_letter where cache = ? returning *), moved as (
     insert into ${at}gencache_outbox (cache, path, lookup, args, source, operation, application)
     select cache, path, lookup, args, source, operation, application from taken order by xid, seq returning 1)
 select count(*)::int as moved from moved`,
    [cache],
  );
  return rows[0]!.moved;
}
