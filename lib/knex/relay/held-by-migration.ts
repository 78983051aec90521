import type { Knex } from 'knex';
import { bumpPaths } from '../../write/bump-paths.js';
import { type RecordedAt, recordedAtSql } from '../outbox/event.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { isSqlstate, isTransient } from '../postgres/sqlstate.js';
import { nearestScope } from '../../model/path.js';
import { scopesToBump } from '../outbox/spellings.js';
import { assertAuthoritative } from './authoritative-bump.js';
import { inBumpTransaction } from './bump-transaction.js';
import { bumpPartitions, dueOf, oweFailed, spanOf } from './partition-bumps.js';
import type { RelayContext } from './relay-context.js';
import { query, verbatim } from '../postgres/query.js';
import { withSavepoint } from '../postgres/savepoint.js';
import { literal } from '../postgres/sql-text.js';

/** The result of one round over the events that migrations hold. */
export interface ReleasedEvents {
  /** Number of events that were bumped for the last time, and deleted. */
  readonly events: number;
  /** The locks that are still taken; `error`: the reason why a lock could not be read. */
  readonly locks: readonly { readonly table: string; readonly error: Error | undefined }[];
}

/**
 * Bumps events that a running migration holds, and deletes those whose lock is free (docs/protocol.md, rule 13).
 *
 * A migration outside a transaction changes tables as it goes, and may die midway. So the relay reads the lock first and
 * bumps after: the last bump comes after the last change, and the earlier ones do no harm. A lock that can't be read may
 * be taken: its events stay, and the relay reports it.
 *
 * The events are not claimed, so that a migration that narrows its bump does not wait for a relay: two relays bump an event
 * twice, and an event that was narrowed meanwhile is no longer there to be deleted. Three queries, and four for each lock; two more where events are deleted.
 */
export async function relayHeldByMigration(context: RelayContext): Promise<ReleasedEvents> {
  const { db, partitions, cache, outbox, bumpDeadlineMs, silenceMaxMs, onForeign } = context;
  const held = heldEventsSql(cache, outbox);
  return inBumpTransaction(db, { silenceMaxMs, first: held }, async (trx, found) => {
    const rows = found as readonly HeldEvent[];
    const locks = new Map<string, boolean | Error>();
    for (const { heldBy } of rows) if (!locks.has(heldBy)) locks.set(heldBy, await isLocked(trx, heldBy));
    const paths = scopesToBump(new Set(rows.map(({ path }) => nearestScope(path))));
    const done = rows.filter(({ heldBy }) => locks.get(heldBy) === false);
    if (!partitions.isPartitioned) {
      const servers = await bumpPaths({ partitions, cache, paths, deadlineMs: bumpDeadlineMs, onForeign });
      if (done.length > 0) await assertAuthoritative(trx, context, servers.get(partitions.first));
    } else if (rows.length > 0) {
      const claimed = { paths, span: spanOf(rows) };
      const bumps = await bumpPartitions(context, dueOf(partitions, claimed));
      // The lock was free before the bumps, so those that are owed come after the last change as well.
      if (done.length > 0) await oweFailed(trx, context, bumps, claimed);
    }
    if (done.length > 0) {
      await query(
        trx,
        `delete from ${qualifier(outbox)}gencache_outbox
         where cache = ? and held_by is not null and (xid, seq) in (select * from unnest(?::xid8[], ?::bigint[]))`,
        [cache, done.map(({ xid }) => xid), done.map(({ seq }) => seq)],
      );
    }
    const taken = [...locks].filter(([, lock]) => lock !== false);
    return {
      events: done.length,
      locks: taken.map(([table, lock]) => ({ table, error: lock instanceof Error ? lock : undefined })),
    };
  });
}

interface HeldEvent extends RecordedAt {
  readonly path: string;
  readonly heldBy: string;
}

function heldEventsSql(cache: string, options: OutboxOptions): string {
  return verbatim(
    `select xid::text, seq::text, ${recordedAtSql('recorded_at')}, path, held_by as "heldBy" from ${qualifier(options)}gencache_outbox
     where cache = ${literal(cache)} and held_by is not null`,
  );
}

/**
 * Whether a migration holds this lock. A lock without its table is free. `table` is only looked up by name, never run.
 * Returns the error if the lock can't be read.
 *
 * A cast finds the table, since to `to_regclass` of PostgreSQL 16 and later a text that is no name is a missing table.
 */
async function isLocked(trx: Knex, table: string): Promise<boolean | Error> {
  let found = false;
  try {
    return await withSavepoint(trx, '', async () => {
      const rows = await query<{ name: string }>(
        trx,
        `select format('%I.%I', nspname, relname) as name from pg_class
         join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = ?::text::regclass`,
        [table],
      );
      found = true;
      const name = rows[0]?.name;
      if (name === undefined) return false;
      const locks = await query(trx, `select from ${verbatim(name)} where is_locked = 1 limit 1`);
      return locks.length > 0;
    });
  } catch (error) {
    if (isTransient(error)) throw error;
    const missing = isSqlstate(error, 'undefined table') || isSqlstate(error, 'invalid schema name');
    return !found && missing ? false : (error as Error);
  }
}
