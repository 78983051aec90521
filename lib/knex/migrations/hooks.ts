/**
 * Knex's lifecycle hooks record the bumps of migrations in the outbox. They write on the connection they are given and
 * never bump: Knex calls them before the commit, and a bump has to come after it. They open no connection to Redis.
 *
 * How Knex (3.3) runs a batch decides when an event is recorded:
 *
 * - All of it in one transaction (`latest`, `up`, `to` where every migration allows it): `beforeAll` gets that
 *   transaction. `afterAll` records in it what is due, unless the trigger on the migrations table has. A batch that
 *   fails takes its events back.
 * - Each migration in a transaction of its own (`down`, `rollback`, and a batch that has one without): `afterEach`
 *   records in it, since the row in Knex's list is written after its commit, and a crash comes in between. The trigger
 *   then records once more; a bump twice is harmless.
 * - A migration outside a transaction (`transaction: false`, `disableTransactions`): it may die midway, with tables
 *   changed and no row written. `beforeEach` commits an event beforehand, held by Knex's lock: a relay bumps it again
 *   and again while that lock is taken, and once after.
 *
 * **Invariant.** What a migration committed is followed by a bump of all it may have changed. For each way of running
 * one, an event commits with the change or before it, and one that commits before stays until Knex's lock, which
 * outlives the change, is free. (A `Promise.all` that fails leaves its other statements behind in a migration that has
 * ended, and the lock free: await them all.)
 *
 * A narrowed bump of a run that failed is forgotten by the next run (`beforeAll`), and what was held for that run then
 * needs one more bump and no holding: the lock is this run's.
 *
 * The owner's hooks run inside ours: `beforeAll` and `beforeEach` after, `afterEach` and `afterAll` before, so that what
 * they change is covered too. What an `afterAll` changes outside a transaction, when all else is recorded, is followed
 * by a global event of its own.
 *
 * Without an outbox, and where `gencache.events` is `off`, they record nothing. About 15 queries a batch, and 10
 * for each migration that has no part in a common transaction.
 */
import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { recordEvents } from '../outbox/record.js';
import type { Relation } from '../postgres/catalog.js';
import { recordDueBumps } from './due-bumps.js';
import { migrationNameOf } from './migration-name.js';
import { findMigrationLock, findMigrationsTable, notHeld, hasOutbox } from './migrations-table.js';
import { coveredByTrigger } from './migrations-trigger.js';

export type Hook = (db: Knex, migrations: unknown[]) => unknown;

/** What Knex's configuration may hold of them. */
export interface Hooks {
  readonly beforeAll?: Hook;
  readonly beforeEach?: Hook;
  readonly afterEach?: Hook;
  readonly afterAll?: Hook;
}

const NO_CACHES: ReadonlySet<string> = new Set();

/** The hooks for these caches, around the owner's. They keep no state but that of batches that are running. */
export function migrationHooks(caches: readonly string[], options: OutboxOptions, owner: Hooks): Required<Hooks> {
  /** By the transaction, or the migrator's own Knex: the caches that the trigger covered when the batch began. */
  const batches = new WeakMap<Knex, ReadonlySet<string>>();
  const at = qualifier(options);

  return {
    async beforeAll(db, migrations) {
      if (await hasOutbox(db, options)) {
        await forgetEarlierRuns(
          db,
          migrations.map((migration) => migrationNameOf(db, migration)),
        );
        batches.set(db, await covered(db));
      } else {
        batches.set(db, NO_CACHES);
      }
      await owner.beforeAll?.(db, migrations);
    },

    async beforeEach(db, migrations) {
      if (!db.isTransaction && (await hasOutbox(db, options))) {
        for (const migration of migrations) await hold(db, migrationNameOf(db, migration));
      }
      await owner.beforeEach?.(db, migrations);
    },

    async afterEach(db, migrations) {
      await owner.afterEach?.(db, migrations);
      const inCommonTransaction = db.isTransaction && batches.has(db);
      if (inCommonTransaction || !(await hasOutbox(db, options))) return;
      const byTrigger = await covered(db);
      for (const cache of caches) {
        // What is held covers it until the trigger has recorded the row that is written next.
        if (!db.isTransaction && byTrigger.has(cache)) continue;
        // A narrowed bump is used up by the migration's own row, where there is a trigger to see it.
        await record(db, cache, migrations, { take: !byTrigger.has(cache) });
      }
    },

    async afterAll(db, migrations) {
      await owner.afterAll?.(db, migrations);
      if (!(await hasOutbox(db, options))) return;
      if (db.isTransaction) {
        const before = batches.get(db) ?? NO_CACHES;
        const byTrigger = await covered(db);
        for (const cache of caches) {
          if (before.has(cache) && byTrigger.has(cache)) continue;
          await record(db, cache, migrations, { take: true });
        }
      } else if (owner.afterAll !== undefined) {
        for (const cache of caches) await record(db, cache, [undefined], { take: false });
      }
    },
  };

  /** By the trigger on the list that this run writes. */
  async function covered(db: Knex): Promise<ReadonlySet<string>> {
    const list = await findMigrationsTable(db);
    if (list === undefined || !(await findMigrationLock(db)).taken) return NO_CACHES;
    return coveredByTrigger(db, caches, list);
  }

  async function record(
    db: Knex,
    cache: string,
    migrations: readonly unknown[],
    { take }: { readonly take: boolean },
  ): Promise<void> {
    const statement = recordDueBumps({
      at,
      cache: ':cache',
      names: 'cast(:names as text[])', // `:names::text[]` is an identifier to Knex
      source: ':source',
      take,
      unlessRecorded: true,
    });
    const list: Relation | undefined = await findMigrationsTable(db);
    await db.raw(statement, {
      cache,
      names: migrations.map((migration) => migrationNameOf(db, migration) ?? null),
      source: list === undefined ? 'migrations' : `${list.schema}.${list.name}`,
    } as unknown as Knex.ValueDict);
  }

  /** Commits an event for each cache before a migration that has no transaction. */
  async function hold(db: Knex, migration: string | undefined): Promise<void> {
    const { rows } = await db.raw<{ rows: { silent: boolean }[] }>(
      `select current_setting('gencache.events', true) is not distinct from 'off' as silent`,
    );
    if (rows[0]!.silent) return;
    const lock = await findMigrationLock(db);
    const { table: heldBy, taken } = lock;
    if (heldBy === undefined || !taken) throw notHeld(lock);
    const source = migration ?? 'migration';
    await recordEvents(
      db,
      caches.map((cache) => ({ cache, path: '', source, operation: 'migration', heldBy })),
      options,
    );
  }

  async function forgetEarlierRuns(db: Knex, names: (string | undefined)[]): Promise<void> {
    const known = names.filter((name) => name !== undefined);
    // In place: an event keeps the transaction that it is of, by which its age is told.
    await db.raw(
      `with forgotten as (
         delete from ${at}gencache_narrowed where cache = any(?) and migration = any(?)
       )
       update ${at}gencache_outbox set held_by = null
       where cache = any(?) and source = any(?) and held_by is not null`,
      [caches, known, caches, known] as unknown as Knex.RawBinding[],
    );
  }
}
