import { monotonicMs } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import type { Partitions } from '../../ports/partitions.js';
import { StoreUnavailableError } from '../../ports/store.js';
import { cut, onConnection, withConnection } from '../postgres/pooled-connection.js';
import { bumpPaths } from '../../write/bump-paths.js';
import { claimSql, hasInvalidPath } from '../outbox/claim.js';
import { type DeadLetter, keepDeadLetters } from '../outbox/dead-letters.js';
import type { OutboxEvent } from '../outbox/event.js';
import type { EventRanges } from '../outbox/event-position.js';
import { authoritativeRedis } from '../outbox/authority.js';
import type { OutboxOptions } from '../outbox/location.js';
import { resolveEvents } from '../outbox/resolve-events.js';
import { query } from '../postgres/query.js';

/** Events that were bumped and deleted. */
export interface RelayedBatch {
  readonly events: number;
  readonly scopes: number;
  /** The paths of these scopes. */
  readonly paths: readonly string[];
  /** Number of events by cause: `detector UPDATE`. */
  readonly causes: ReadonlyMap<string, number>;
  readonly deadLetters: readonly DeadLetter[];
  readonly durationMs: number;
}

/** The server that took the bumps is not authoritative: the events stay. */
export class DisplacedError extends StoreUnavailableError {}

/** The servers, names and limits that a relay works with. */
export interface RelayContext {
  readonly db: Knex;
  /** One. */
  readonly partitions: Partitions;
  readonly cache: string;
  readonly outbox: OutboxOptions;
  readonly bumpDeadlineMs: number;
  /** Called with the paths at whose keys a bump found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
  /** PostgreSQL ends the session of a relay that is silent between claim and commit for this time, in ms. */
  readonly silenceMaxMs: number;
}

/**
 * Claims events, resolves, bumps and deletes them, in one transaction (docs/protocol.md, rules 6, 7 and 10).
 *
 *     BEGIN, claim and delete  [lookups]  bump  assert that the server is authoritative  COMMIT
 *
 * Before COMMIT a crash, a failure or a lost connection puts the events back, bumped or not; a second bump is harmless. A
 * relay that is suspended in between keeps its claim until PostgreSQL ends its session. Other relays skip claimed events.
 * Three queries or more, and one command for each 1,000 scopes; two queries without events.
 */
export async function relayBatch(context: RelayContext, ranges: EventRanges, batchMax: number): Promise<RelayedBatch> {
  return (await relayClaim(context, ranges, batchMax)) ?? (await relayClaim(context, ranges, batchMax, true))!;
}

/** Returns undefined, and leaves the events, if one has an invalid path and `whole` is false. */
async function relayClaim(
  context: RelayContext,
  ranges: EventRanges,
  max: number,
  whole = false,
): Promise<RelayedBatch | undefined> {
  const { db, partitions, cache, outbox, bumpDeadlineMs, silenceMaxMs, onForeign } = context;
  const startedAtMs = monotonicMs();
  const first = claimSql({ cache, ranges, max, outbox, whole });
  try {
    return await inBumpTransaction(db, { silenceMaxMs, first }, async (trx, rows) => {
      const events = rows as readonly OutboxEvent[];
      if (!whole && hasInvalidPath(events)) throw new InvalidPath();
      const { paths, deadLetters } = await resolveEvents(trx, events, outbox);
      const server = await bumpPaths({ partitions, cache, paths, deadlineMs: bumpDeadlineMs, onForeign });
      await keepDeadLetters(trx, deadLetters, outbox);
      if (events.length > 0) await assertAuthoritative(trx, context, server);
      const causes = new Map<string, number>();
      for (const { cause } of events) causes.set(cause, (causes.get(cause) ?? 0) + 1);
      const durationMs = monotonicMs() - startedAtMs;
      return { events: events.length, scopes: paths.length, paths, causes, deadLetters, durationMs };
    });
  } catch (error) {
    if (error instanceof InvalidPath) return undefined;
    throw error;
  }
}

/** Rolls a claim back, whose events are claimed again with their rows. */
class InvalidPath extends Error {}

/**
 * Runs `work` in a transaction that may bump, with the rows of its first statement, which goes in one message with BEGIN.
 *
 * - Each statement sees all earlier commits, and may write, whatever the defaults are.
 * - PostgreSQL refuses a query from which row level security would hide rows.
 * - PostgreSQL ends the session if this process is suspended or cut off.
 * - COMMIT does not wait for the disk: the transaction only deletes bumped events, and after a crash that undoes this they
 *   are bumped again.
 * - The connection is cut after twice `silenceMaxMs`: by then PostgreSQL has ended the session, or does not answer. It is cut
 *   at once if a ROLLBACK fails.
 *
 * `first` has no parameters. The transaction is not one of Knex's, whose BEGIN is a message of its own. Two queries beside those
 * of `work`.
 */
export function inBumpTransaction<T>(
  db: Knex,
  { silenceMaxMs, first }: { readonly silenceMaxMs: number; readonly first: string },
  work: (trx: Knex, rows: readonly unknown[]) => Promise<T>,
): Promise<T> {
  return withConnection(db, 2 * silenceMaxMs, async (connection) => {
    const trx = onConnection(db, connection);
    try {
      const rows = await query(
        trx,
        `BEGIN; set transaction isolation level read committed, read write;
         set local idle_in_transaction_session_timeout = ${silenceMaxMs}; set local synchronous_commit = off;
         set local row_security = off; ${first}`,
      );
      const result = await work(trx, rows);
      await query(trx, 'COMMIT;');
      return result;
    } catch (error) {
      await query(trx, 'ROLLBACK;').catch(() => cut(connection));
      throw error;
    }
  });
}

/** Throws DisplacedError unless the server that took the bumps is authoritative, and stays so until this transaction commits. */
export async function assertAuthoritative(
  trx: Knex,
  { partitions, cache, outbox }: RelayContext,
  server: string | undefined,
): Promise<void> {
  const authority = await authoritativeRedis(trx, cache, outbox);
  if (server !== undefined && authority === server) return;
  partitions.first.store.revalidate?.();
  throw new DisplacedError(
    (server === undefined
      ? 'The bumps went to several Redis servers, or to one of unknown incarnation'
      : `The bumps went to a Redis that is not the authoritative one (${server}, not ${authority ?? 'any'})`) +
      ': it has failed over, or another relay of this cache uses another Redis. The events stay in the outbox; a relay ' +
      'bumps them again.',
    true,
  );
}
