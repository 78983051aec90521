import type { Knex } from 'knex';
import type { Store } from '../../store/store.js';
import { bumpPaths } from '../outbox/bump-paths.js';
import { nearestScope } from '../outbox/resolve.js';
import { type OutboxOptions, qualifier } from '../outbox/place.js';
import { demandCounted, limitSilence } from './batch.js';

/**
 * Bumps events that a running migration holds, and deletes those whose lock is free (protocol rule 13).
 *
 * A migration outside a transaction changes tables as it goes, and may die midway without a word. So the lock is looked
 * at first and bumped after: the last bump comes after the last change, and each one before it is one more.
 * Passes over what another relay has claimed. Returns how many were deleted. Three queries, and one for each lock.
 */
export async function relayHeld(
  db: Knex,
  store: Store,
  cache: string,
  options: { readonly deadlineMs: number; readonly outbox: OutboxOptions },
): Promise<number> {
  const outbox = `${qualifier(options.outbox)}gencache_outbox`;
  return db.transaction(async (trx) => {
    await limitSilence(trx);
    const { rows } = await trx.raw<{ rows: { xid: string; seq: string; path: string; held_by: string }[] }>(
      `select xid::text, seq::text, path, held_by from ${outbox}
       where cache = ? and held_by is not null for update skip locked`,
      [cache],
    );
    if (rows.length === 0) return 0;
    const free = new Set<string>();
    for (const table of new Set(rows.map((row) => row.held_by))) if (!(await isLocked(trx, table))) free.add(table);
    const paths = [...new Set(rows.map(({ path }) => nearestScope(path)))];
    const server = await bumpPaths(store, cache, paths, options.deadlineMs);
    const done = rows.filter((row) => free.has(row.held_by));
    if (done.length === 0) return 0;
    await demandCounted(trx, store, cache, server, options.outbox);
    await trx.raw(
      `delete from ${outbox} where cache = ? and (xid, seq) in (select * from unnest(?::xid8[], ?::bigint[]))`,
      [cache, done.map(({ xid }) => xid), done.map(({ seq }) => seq)] as unknown as Knex.RawBinding[],
    );
    return done.length;
  });
}

/** Whether a migration holds this lock; one whose table is gone is free. `table` is looked up, never run. */
async function isLocked(trx: Knex.Transaction, table: string): Promise<boolean> {
  const { rows } = await trx.raw<{ rows: { name: string }[] }>(
    `select format('%I.%I', nspname, relname) as name from pg_class
     join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = to_regclass(?)`,
    [table],
  );
  const name = rows[0]?.name;
  if (name === undefined) return false;
  const { rows: locks } = await trx.raw<{ rows: unknown[] }>(`select from ${name} where is_locked = 1 limit 1`);
  return locks.length > 0;
}
