import { monotonicMs } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import { type Store, StoreUnavailableError } from '../../ports/store.js';
import { withConnection } from '../postgres/pooled-connection.js';
import { bumpPaths } from '../../write/bump-paths.js';
import { claimEvents } from '../outbox/claim.js';
import { type DeadLetter, keepDeadLetters } from '../outbox/dead-letters.js';
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
  readonly store: Store;
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
 *     BEGIN  claim and delete  [lookups]  bump  assert that the server is authoritative  COMMIT
 *
 * Before COMMIT a crash, a failure or a lost connection puts the events back, bumped or not; a second bump is harmless. A
 * relay that is suspended in between keeps its claim until PostgreSQL ends its session. Other relays skip claimed events.
 * Five queries or more, and one command for each 1,000 scopes.
 */
export async function relayBatch(context: RelayContext, ranges: EventRanges, batchMax: number): Promise<RelayedBatch> {
  const { db, store, cache, outbox, bumpDeadlineMs, silenceMaxMs, onForeign } = context;
  const startedAtMs = monotonicMs();
  return inBumpTransaction(db, silenceMaxMs, async (trx) => {
    const events = await claimEvents(trx, { cache, ranges, max: batchMax, outbox });
    const { paths, deadLetters } = await resolveEvents(trx, events, outbox);
    const server = await bumpPaths({ store, cache, paths, deadlineMs: bumpDeadlineMs, onForeign });
    await keepDeadLetters(trx, deadLetters, outbox);
    if (events.length > 0) await assertAuthoritative(trx, context, server);
    const causes = new Map<string, number>();
    for (const { cause } of events) causes.set(cause, (causes.get(cause) ?? 0) + 1);
    const durationMs = monotonicMs() - startedAtMs;
    return { events: events.length, scopes: paths.length, paths, causes, deadLetters, durationMs };
  });
}

/**
 * Runs `work` in a transaction that may bump. One query beside BEGIN and COMMIT.
 *
 * - Each statement sees all earlier commits, and may write, whatever the defaults are.
 * - PostgreSQL refuses a query from which row level security would hide rows.
 * - PostgreSQL ends the session if this process is suspended or cut off.
 * - COMMIT does not wait for the disk: the transaction only deletes bumped events, and after a crash that undoes this they
 *   are bumped again.
 * - The connection is cut after twice `silenceMaxMs`: by then PostgreSQL has ended the session, or does not answer.
 */
export function inBumpTransaction<T>(
  db: Knex,
  silenceMaxMs: number,
  work: (trx: Knex.Transaction) => Promise<T>,
): Promise<T> {
  return withConnection(db, 2 * silenceMaxMs, (connection) =>
    db.transaction(
      async (trx) => {
        await query(
          trx,
          `set transaction isolation level read committed, read write;
           set local idle_in_transaction_session_timeout = ${silenceMaxMs}; set local synchronous_commit = off;
           set local row_security = off`,
        );
        return work(trx);
      },
      { connection },
    ),
  );
}

/** Throws DisplacedError unless the server that took the bumps is authoritative, and stays so until this transaction commits. */
export async function assertAuthoritative(
  trx: Knex.Transaction,
  { store, cache, outbox }: RelayContext,
  server: string | undefined,
): Promise<void> {
  const authority = await authoritativeRedis(trx, cache, outbox);
  if (server !== undefined && authority === server) return;
  store.revalidate?.();
  throw new DisplacedError(
    (server === undefined
      ? 'The bumps went to several Redis servers, or to one of unknown incarnation'
      : `The bumps went to a Redis that is not the authoritative one (${server}, not ${authority ?? 'any'})`) +
      ': it has failed over, or another relay of this cache uses another Redis. The events stay in the outbox; a relay ' +
      'bumps them again.',
    true,
  );
}
