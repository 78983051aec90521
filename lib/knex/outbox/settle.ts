import { monotonicMs } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import type { BumpTarget } from '../../ports/source.js';
import { type BumpServers, bumpScopes } from '../../write/bump-scopes.js';
import type { OutboxEvent } from './event.js';
import type { OutboxOptions } from './location.js';
import { bumpPaths } from '../../write/bump-paths.js';
import { isOwed, type OwedPaths, owedFor } from './owed.js';
import { resolveEvents } from './resolve-events.js';
import { scopesToBump } from './spellings.js';
import { deleteEventsOf, eventsOf, waitingEvents } from './transaction-events.js';
import type { TransactionId } from './transaction-id.js';
import { warnOfRefusal } from './warn-of-refusal.js';

/** The bump that follows a commit. */
export interface BumpAfterCommit {
  /** Events whose scopes had to be looked up before the commit, and are looked up again after it. */
  readonly lookups: readonly OutboxEvent[];
  /** Bumps these scopes. Returns the servers that took all of it. */
  bump(paths: readonly string[]): Promise<BumpServers>;
}

/**
 * Bumps the events of a committed transaction, and deletes them.
 *
 * An outbox that looks empty under SKIP LOCKED proves nothing: a relay that has claimed the events may not have bumped
 * them yet (docs/protocol.md, rule 8). So a plain SELECT by the transaction's id, which shows claimed events too, reads
 * them, and this process bumps them as well. A missing event was bumped before it was deleted. An event that is not
 * understood is left to a relay. A strict commit looks up again the events that a relay has deleted, to learn whether
 * its quarantine covered their scopes.
 *
 * A lookup misses a scope if another transaction has taken away a row on its way, whose event bumps that scope
 * (docs/protocol.md, rule 3). That event may wait. So after lookups this process bumps all events that wait, and leaves them to a
 * relay to delete: one snapshot shows the rows of the lookups and the events, and an event that is gone was bumped before.
 *
 * If this process dies in between, or a step fails, a relay bumps the events that were not deleted. Two queries, and one
 * command for each 1,000 scopes; with lookups at least four queries more. Rejects as the source and the store do.
 */
export async function settleEvents(
  { db, outbox }: { readonly db: Knex; readonly outbox: OutboxOptions },
  xid: TransactionId,
  bumps: BumpTarget,
  commit: BumpAfterCommit,
): Promise<void> {
  const startedAtMs = monotonicMs();
  let events: readonly OutboxEvent[] = [];
  let scopes: Awaited<ReturnType<typeof scopesOf>> = { paths: [], understood: true };
  let owed: readonly OwedPaths[] = [];
  const report = (paths: readonly string[], error?: unknown) =>
    bumps.bumped(paths, events[0]?.cause ?? 'none', monotonicMs() - startedAtMs, error);
  let servers;
  try {
    events = await eventsOf(db, bumps.cache, xid.id, outbox);
    const own = [...events, ...missing(commit.lookups, events)];
    scopes = await scopesOf(db, own, outbox);
    if (bumps.partitions.isPartitioned) owed = await owedFor(db, bumps.cache, xid.id, outbox);
    servers = await commit.bump(scopes.paths);
    if (owed.length > 0) await bumpOwed(owed, bumps);
    if (own.some(hasLookup)) await bumpWaiting(db, xid, bumps, outbox);
  } catch (error) {
    // What is owed is missing too: this process bypasses it until it is bumped (docs/protocol.md, rule 23a).
    report([...new Set([...scopes.paths, ...owed.flatMap(({ paths }) => paths)])], error);
    throw error;
  }
  if (events.length === 0) return;
  report(scopes.paths);
  if (!scopes.understood) return;
  // A failure here costs a second bump, by a relay.
  await deleteEventsOf(db, xid, { bumps, servers, outbox }).catch((error: unknown) =>
    warnOfRefusal({ db, outbox }, bumps, error, UNDELETED),
  );
}

const UNDELETED =
  'The events of a transaction were bumped, and stay in the outbox: a relay bumps them again; without a relay they stay.';

/** Most events of other transactions that a transaction bumps: beyond them, its own events are left to a relay. */
const WAITING_MAX = 1_000;

/**
 * Bumps what partitions owe for events of a transaction, which a relay has deleted. The relay bumps it too, once their
 * primary is there.
 */
async function bumpOwed(owed: readonly OwedPaths[], bumps: BumpTarget): Promise<void> {
  const { cache: level, bumpDeadlineMs: deadlineMs, foreign: onForeign } = bumps;
  const partitions = await bumps.present();
  const scopes = owed.flatMap(({ partition: name, paths }) => {
    const partition = partitions.list.find((each) => each.name === name);
    return partition === undefined ? [] : partitions.scopesIn(partition, paths);
  });
  await bumpScopes({ partitions, scopes, level, deadlineMs, onForeign, ttlMs: 0, afterFailure: 'stop' });
}

/** Bumps the events of other transactions that wait. Three queries and more for lookups, and one command. */
async function bumpWaiting(db: Knex, xid: TransactionId, bumps: BumpTarget, outbox: OutboxOptions): Promise<void> {
  const { cache, bumpDeadlineMs: deadlineMs, foreign: onForeign } = bumps;
  const { paths, isCut } = await db.transaction(
    async (trx) => {
      const events = await waitingEvents(trx, { cache, exceptXid: xid.id, max: WAITING_MAX + 1, outbox });
      const resolved = await resolveEvents(trx, events.slice(0, WAITING_MAX), outbox);
      return { paths: resolved.paths, isCut: events.length > WAITING_MAX };
    },
    { isolationLevel: 'repeatable read' },
  );
  if (isCut) {
    throw new Error(
      `More than ${WAITING_MAX.toLocaleString('en')} events of other transactions wait in the outbox, and a lookup of this one ` +
        'may rest on any of them. The events stay in the outbox; a relay bumps them.',
    );
  }
  if (bumps.partitions.isPartitioned && (await isOwed(db, cache, outbox))) {
    throw new Error(
      'A partition of the store owes bumps of other transactions, and a lookup of this one may rest on any of them. The events ' +
        'stay in the outbox; a relay bumps them.',
    );
  }
  if (paths.length > 0) await bumpPaths({ partitions: await bumps.present(), cache, paths, deadlineMs, onForeign });
}

function hasLookup({ unresolved }: OutboxEvent): boolean {
  return unresolved?.lookup != null;
}

function missing(before: readonly OutboxEvent[], after: readonly OutboxEvent[]): OutboxEvent[] {
  const there = new Set(after.map(({ unresolved }) => unresolved?.seq));
  return before.filter(({ unresolved }) => !there.has(unresolved?.seq));
}

/** The scopes of the events of a transaction that has committed, or that calls this right before COMMIT. */
export async function scopesOf(
  db: Knex,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<{ readonly paths: readonly string[]; readonly understood: boolean }> {
  if (events.every(({ unresolved }) => unresolved === null)) {
    return { paths: scopesToBump(new Set(events.map(({ path }) => path))), understood: true };
  }
  const { paths, deadLetters } = await db.transaction((trx) => resolveEvents(trx, events, options), {
    isolationLevel: 'read committed',
  });
  return { paths, understood: deadLetters.length === 0 };
}
