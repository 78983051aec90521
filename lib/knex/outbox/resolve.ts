import type { Knex } from 'knex';
import { type OddEvent, type OutboxEvent, SEGMENT } from './event.js';
import { type OutboxOptions, qualifier } from './place.js';

/** What to bump for some events, and which of them were not understood. */
export interface Resolved {
  /** Distinct scopes, none below another. */
  readonly paths: readonly string[];
  readonly poisoned: readonly { readonly event: OddEvent; readonly bumped: string; readonly reason: string }[];
}

/** A lookup that gives more scopes than this is bumped as its fallback, to keep memory bounded. */
const LOOKED_UP_MAX = 10_000;
/** Lookups are functions of the outbox's schema with such names, and no others are called. */
const LOOKUP = /^gencache_lookup_[a-z0-9_]{1,47}$/;

/**
 * Turns events into the scopes to bump.
 *
 * Lookups run here, after the commit of what they look up for, each in a fresh snapshot (READ COMMITTED): two
 * transactions that each saw only their own half have both committed by the later one's turn (protocol rule 3).
 *
 * An event that is not understood is a commit all the same (rule 7): the nearest scope above that parses is bumped for
 * it, global if none does. So is a lookup whose function is gone or fails for good; one that fails for the moment (a
 * connection, a lock, a shutdown) throws, and the events are tried again.
 *
 * One query for each lookup function; more only where one fails.
 */
export async function resolve(
  trx: Knex.Transaction,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<Resolved> {
  const paths = new Set<string>();
  const poisoned: Resolved['poisoned'][number][] = [];
  const lookups = new Map<string, OutboxEvent[]>();
  const poison = ({ path, odd }: OutboxEvent, reason: string) => {
    const bumped = nearestScope(path);
    paths.add(bumped);
    poisoned.push({ event: odd!, bumped, reason });
  };
  for (const event of events) {
    const { path, odd } = event;
    if (odd === null) paths.add(path);
    else if (odd.lookup === null) poison(event, `Its path is none: ${JSON.stringify(path.slice(0, 200))}.`);
    else if (!LOOKUP.test(odd.lookup)) poison(event, `Its lookup is none: ${JSON.stringify(odd.lookup)}.`);
    else lookups.set(odd.lookup, [...(lookups.get(odd.lookup) ?? []), event]);
  }
  for (const [lookup, asking] of lookups) {
    const found = await lookUp(trx, lookup, asking, options);
    if (!(found instanceof Error)) for (const path of found) paths.add(path);
    else if (asking.length === 1) poison(asking[0]!, found.message);
    else {
      for (const event of asking) {
        const own = await lookUp(trx, lookup, [event], options);
        if (own instanceof Error) poison(event, own.message);
        else for (const path of own) paths.add(path);
      }
    }
  }
  return { paths: topmost(paths), poisoned };
}

/** The scopes that a lookup finds for these events, or why it never will. */
async function lookUp(
  trx: Knex.Transaction,
  lookup: string,
  events: readonly OutboxEvent[],
  options: OutboxOptions,
): Promise<readonly string[] | Error> {
  const args = events.flatMap(({ odd }) => (Array.isArray(odd!.args) ? (odd!.args as unknown[]) : [odd!.args]));
  try {
    const { rows } = await trx.transaction((savepoint) =>
      savepoint.raw<{ rows: { path: string }[] }>(
        `select distinct path from ${qualifier(options)}${lookup}(?::jsonb) as path limit ?`,
        [JSON.stringify(args), LOOKED_UP_MAX + 1],
      ),
    );
    const paths = rows.map(({ path }) => path);
    if (paths.length > LOOKED_UP_MAX) return events.map(({ path }) => nearestScope(path));
    return paths.map((path) => nearestScope(path));
  } catch (error) {
    if (neverWorks(error)) return error as Error;
    throw error;
  }
}

/** Classes of SQLSTATE that another attempt meets again: bad data, and what is undefined, forbidden or misspelt. */
function neverWorks(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && /^(?:22|42|0A|P0)[0-9A-Z]{3}$/.test(code);
}

const ONE_SEGMENT = new RegExp(`^${SEGMENT}$`);

/** The path itself, or its longest part from the root that parses. */
export function nearestScope(path: string): string {
  const good: string[] = [];
  for (const segment of path.split('/')) {
    if (!ONE_SEGMENT.test(segment)) break;
    good.push(segment);
  }
  return good.slice(0, 16).join('/');
}

/** Those that have none of the others above them: bumping a scope makes everything below it unreachable. */
export function topmost(paths: ReadonlySet<string>): string[] {
  if (paths.has('')) return [''];
  return [...paths].filter((path) => {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      if (paths.has(path.slice(0, end))) return false;
    }
    return true;
  });
}
