import type { Knex } from 'knex';
import { deferred } from '../../support/deferred.js';

export const CACHE = 'shop';

/** Does something in a transaction that stays open until it is told to end. */
export async function holding(
  db: Knex,
  work: (trx: Knex.Transaction) => PromiseLike<unknown>,
): Promise<() => Promise<void>> {
  const [held, ends] = [deferred(), deferred()];
  const transaction = db.transaction(async (trx) => {
    await work(trx);
    held.resolve();
    await ends.promise;
  });
  await held.promise;
  return async () => {
    ends.resolve();
    await transaction;
  };
}

export interface RecordedEvent {
  readonly cache: string;
  readonly path: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly source: string;
  readonly operation: string;
  readonly application: string;
}

/** What was recorded, and is then forgotten: events in order. */
export async function takeEvents(db: Knex): Promise<RecordedEvent[]> {
  const { rows } = await db.raw<{ rows: (RecordedEvent & { seq: string })[] }>(
    'delete from gencache_outbox returning cache, path, lookup, args, source, operation, application, seq',
  );
  return rows.sort((a, b) => Number(BigInt(a.seq) - BigInt(b.seq)));
}

/** The same as `UPDATE detector=1`, sorted. */
export async function takePaths(db: Knex): Promise<string[]> {
  return (await takeEvents(db)).map(({ operation, path }) => `${operation} ${path}`).sort();
}

/** What was recorded with its lookups resolved, as a relay does: now, in a fresh snapshot. Distinct scopes, sorted. */
export async function takeScopes(db: Knex): Promise<string[]> {
  const scopes = new Set<string>();
  for (const { path, lookup, args } of await takeEvents(db)) {
    if (lookup === null) scopes.add(path);
    else {
      const { rows } = await db.raw<{ rows: { path: string }[] }>(`select path from ??(?::jsonb) as path`, [
        lookup,
        JSON.stringify(args),
      ]);
      for (const row of rows) scopes.add(row.path);
    }
  }
  return [...scopes].sort();
}

/** Everything that triggers leave in the catalog of this schema. */
export async function leftovers(db: Knex): Promise<string[]> {
  const { rows } = await db.raw<{ rows: { name: string }[] }>(
    `select proname as name from pg_proc
     where pronamespace = current_schema()::regnamespace and proname ~ '^gencache_(on|lookup)_'
     union all
     select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
     where relnamespace = current_schema()::regnamespace and tgname ~ '^gencache_'
     union all select 'definition of ' || table_name from gencache_trigger`,
  );
  return rows.map(({ name }) => name);
}
