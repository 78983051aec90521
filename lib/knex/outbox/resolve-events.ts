import type { Knex } from 'knex';
import { isScope, nearestScope } from '../../model/path.js';
import { isSqlstate, isTransient, reasonOf } from '../postgres/sqlstate.js';
import type { DeadLetter } from './dead-letters.js';
import type { OutboxEvent } from './event.js';
import { type OutboxOptions, qualifier } from './location.js';
import { scopesToBump } from './spellings.js';
import { query } from '../postgres/query.js';
import { withSavepoint } from '../postgres/savepoint.js';

/** The scopes to bump for a list of events, and the events that were not understood. */
export interface ResolvedEvents {
  /** Distinct scopes, in every spelling of their ids, none below another. */
  readonly paths: readonly string[];
  readonly deadLetters: readonly DeadLetter[];
}

/** A lookup that finds more scopes than this is replaced by its fallbacks, to bound memory. */
const LOOKED_UP_MAX = 10_000;
/** Only functions of the outbox's schema with such names are called. */
const LOOKUP = /^gencache_lookup_[a-z0-9_]{1,47}$/;

/**
 * Turns events into the scopes to bump.
 *
 * Lookups run after the commit that recorded their events, each in a fresh snapshot (READ COMMITTED): when the events
 * of the later of two concurrent transactions are resolved, both have committed (docs/protocol.md, rule 3).
 *
 * An event that is not understood must be bumped too (docs/protocol.md, rule 7): its nearest valid ancestor is bumped,
 * or global. The same goes for an event whose lookup is missing or fails. A passing failure (a connection, a lock, a
 * shutdown) is thrown instead, and the events are tried again. A looked-up table that stays locked bumps the fallbacks
 * of its events, since all other events wait as well.
 *
 * Three queries for each lookup function. Where a lookup fails, its events are halved until the failing ones are found: three
 * queries for each half.
 */
export async function resolveEvents(
  trx: Knex,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<ResolvedEvents> {
  const paths = new Set<string>();
  const deadLetters: DeadLetter[] = [];
  const lookups = new Map<string, OutboxEvent[]>();
  const waitingFor = (lookup: string): OutboxEvent[] => {
    const waiting = lookups.get(lookup) ?? [];
    lookups.set(lookup, waiting);
    return waiting;
  };
  const bury = ({ path, unresolved }: OutboxEvent, reason: string) => {
    const bumped = nearestScope(path);
    paths.add(bumped);
    deadLetters.push({ event: unresolved!, bumped, reason });
  };
  for (const event of events) {
    const { path, unresolved } = event;
    const lookup = unresolved?.lookup ?? null;
    if (unresolved === null || (lookup === null && isScope(path))) paths.add(path);
    else if (lookup === null) bury(event, `The path is invalid: ${JSON.stringify(path.slice(0, 200))}.`);
    else if (!LOOKUP.test(lookup)) bury(event, `The lookup is not one of gencache's: ${JSON.stringify(lookup)}.`);
    else waitingFor(lookup).push(event);
  }
  for (const [lookup, waiting] of lookups) {
    const found = new Set<string>();
    await lookUp(waiting, { trx, lookup, options, found, bury });
    // The fallbacks stand above all scopes that the lookup can find.
    if (found.size > LOOKED_UP_MAX) for (const { path } of waiting) paths.add(nearestScope(path));
    else for (const path of found) paths.add(path);
  }
  return { paths: scopesToBump(paths), deadLetters };
}

interface LookupRun {
  readonly trx: Knex;
  readonly lookup: string;
  readonly options: OutboxOptions;
  /** The scopes found so far; the run ends soon after there are more than `LOOKED_UP_MAX`. */
  readonly found: Set<string>;
  readonly bury: (event: OutboxEvent, reason: string) => void;
}

/** Adds the scopes that a lookup finds for these events. */
async function lookUp(events: readonly OutboxEvent[], run: LookupRun): Promise<void> {
  const { trx, lookup, options, found, bury } = run;
  if (found.size > LOOKED_UP_MAX) return;
  const args = events.flatMap(({ unresolved }) =>
    Array.isArray(unresolved!.args) ? (unresolved!.args as unknown[]) : [unresolved!.args],
  );
  try {
    const settings = `set local lock_timeout = ${LOCK_TIMEOUT_MS}; set local row_security = off`;
    const rows = await withSavepoint(trx, settings, () =>
      query<{ path: string }>(
        trx,
        `select distinct coalesce(path, '') as path from ${qualifier(options)}${lookup}(?::jsonb) as path limit ?`,
        [JSON.stringify(args), LOOKED_UP_MAX + 1],
      ),
    );
    for (const { path } of rows) found.add(nearestScope(path));
  } catch (error) {
    if (isSqlstate(error, 'lock not available')) {
      for (const { path } of events) found.add(nearestScope(path));
      return;
    }
    if (isTransient(error)) throw error;
    // Halves would take as long again before statement_timeout, and would lack the same right.
    const refused = isSqlstate(error, 'insufficient privilege');
    if (events.length === 1 || refused || isSqlstate(error, 'query canceled')) {
      const reason = refused ? `${reasonOf(error as Error)}. ${REFUSED_REMEDY}` : reasonOf(error as Error);
      for (const event of events) bury(event, reason);
      return;
    }
    const half = events.length >> 1;
    await lookUp(events.slice(0, half), run);
    await lookUp(events.slice(half), run);
  }
}

/** With `row_security = off`, PostgreSQL refuses a query from which a policy would hide rows. */
const REFUSED_REMEDY =
  'The role that runs lookups must see all rows of the table: grant it SELECT and, where row level security is on, BYPASSRLS.';

/** Time limit for a lock on a looked-up table, in ms: all other events wait as well. */
const LOCK_TIMEOUT_MS = 500;
