import type { Knex } from 'knex';
import type { Bumps } from '../../source.js';
import { bumpPaths } from './bump-paths.js';
import { deleteEventsOf, eventsOf, type OutboxEvent } from './event.js';
import type { OutboxOptions } from './place.js';
import { resolve, topmost } from './resolve.js';

/** Bumps scopes, and tells which incarnation of the store took that. */
export type BumpScopes = (paths: readonly string[]) => Promise<string | undefined>;

/**
 * Bumps what a committed transaction recorded, and deletes it.
 *
 * The queue being empty would prove nothing: a relay that has claimed the events may not have bumped them yet (protocol
 * rule 8). So they are read by the transaction's id with a plain SELECT, which shows what is claimed, and bumped here
 * as well; what is no longer there was bumped before it was deleted. One that is not understood is left to a relay.
 *
 * If this process dies in between, or a step fails, what was not deleted is still there for a relay, and bumped again.
 * Two queries, and one command for each 1,000 scopes; more for lookups. Rejects as the source and the store do.
 */
export async function settleEvents(
  db: Knex,
  xid: string,
  bumps: Bumps,
  options: OutboxOptions,
  bump: BumpScopes = (paths) => bumpPaths(bumps.store, bumps.cache, paths, bumps.bumpDeadlineMs),
): Promise<void> {
  const startedAtMs = performance.now();
  const events = await eventsOf(db, bumps.cache, xid, options);
  const { paths, understood } = await scopesOf(db, events, options);
  const told = (error?: unknown) =>
    bumps.bumped(paths, events[0]?.cause ?? 'none', performance.now() - startedAtMs, error);
  let server;
  try {
    server = await bump(paths);
  } catch (error) {
    told(error);
    throw error;
  }
  if (events.length === 0) return;
  told();
  // A failure here costs a second bump, by a relay.
  if (understood) await deleteEventsOf(db, bumps.cache, xid, server, options).catch(() => {});
}

/** The scopes of events of a transaction that has committed, or is about to and asks from within. */
export async function scopesOf(
  db: Knex,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<{ readonly paths: readonly string[]; readonly understood: boolean }> {
  if (events.every(({ odd }) => odd === null)) {
    return { paths: topmost(new Set(events.map(({ path }) => path))), understood: true };
  }
  const { paths, poisoned } = await db.transaction((trx) => resolve(trx, events, options));
  return { paths, understood: poisoned.length === 0 };
}
