import type { Knex } from 'knex';
import type { BumpTarget } from '../../ports/source.js';
import { bumpPaths } from '../../write/bump-paths.js';
import { deleteEventsOf, eventsOf, type OutboxEvent } from './event.js';
import type { OutboxOptions } from './location.js';
import { resolveEvents, topmost } from './resolve-events.js';
import type { TransactionId } from './transaction-id.js';

/** What a strict commit put up before it, to be lifted after. */
export interface StandingQuarantine {
  /** Events that it recorded whose scopes have to be looked up after the commit. */
  readonly lookUps: readonly OutboxEvent[];
  /** Bumps what stands, and these scopes as well; tells which incarnation of the store took that. */
  lift(paths: readonly string[]): Promise<string | undefined>;
}

/**
 * Bumps what a committed transaction recorded, and deletes it.
 *
 * The queue being empty would prove nothing: a relay that has claimed the events may not have bumped them yet (docs/protocol.md,
 * rule 8). So they are read by the transaction's id with a plain SELECT, which shows what is claimed, and bumped here
 * as well; what is no longer there was bumped before it was deleted. One that is not understood is left to a relay.
 * A strict commit looks up again what a relay has deleted, to know whether it stood wherever it should have.
 *
 * If this process dies in between, or a step fails, what was not deleted is still there for a relay, and bumped again.
 * Two queries, and one command for each 1,000 scopes; more for lookups. Rejects as the source and the store do.
 */
export async function settleEvents(
  db: Knex,
  xid: TransactionId,
  bumps: BumpTarget,
  options: OutboxOptions,
  standing?: StandingQuarantine,
): Promise<void> {
  const startedAtMs = performance.now();
  let events: readonly OutboxEvent[] = [];
  let scopes: Awaited<ReturnType<typeof scopesOf>> = { paths: [], understood: true };
  const told = (error?: unknown) =>
    bumps.bumped(scopes.paths, events[0]?.cause ?? 'none', performance.now() - startedAtMs, error);
  let server;
  try {
    events = await eventsOf(db, bumps.cache, xid.id, options);
    scopes = await scopesOf(db, standing ? [...events, ...missing(standing.lookUps, events)] : events, options);
    server = await (standing
      ? standing.lift(scopes.paths)
      : bumpPaths(bumps.store, bumps.cache, scopes.paths, bumps.bumpDeadlineMs));
  } catch (error) {
    told(error);
    throw error;
  }
  if (events.length === 0) return;
  told();
  // A failure here costs a second bump, by a relay.
  if (scopes.understood) await deleteEventsOf(db, bumps.cache, xid, server, options).catch(() => {});
}

function missing(known: readonly OutboxEvent[], found: readonly OutboxEvent[]): OutboxEvent[] {
  const there = new Set(found.map(({ unresolved }) => unresolved?.seq));
  return known.filter(({ unresolved }) => !there.has(unresolved?.seq));
}

/** The scopes of events of a transaction that has committed, or is about to and asks from within. */
export async function scopesOf(
  db: Knex,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<{ readonly paths: readonly string[]; readonly understood: boolean }> {
  if (events.every(({ unresolved }) => unresolved === null)) {
    return { paths: topmost(new Set(events.map(({ path }) => path))), understood: true };
  }
  const { paths, poisoned } = await db.transaction((trx) => resolveEvents(trx, events, options));
  return { paths, understood: poisoned.length === 0 };
}
