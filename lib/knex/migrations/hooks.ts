/**
 * Knex's lifecycle hooks record the bumps of migrations in the outbox. The hooks write on the connection that they are
 * given, and never bump: Knex calls them before the commit, and a bump has to come after it. They open no connection to
 * Redis.
 *
 * The way in which Knex (3.3) runs a batch decides when an event is recorded:
 *
 * - The whole batch in one transaction (`latest`, `up`, `to`, where every migration allows it): `beforeAll` gets that
 *   transaction. `afterAll` records the due bumps in it, unless the trigger on the migrations table has. A failed batch
 *   rolls its events back.
 * - Each migration in a transaction of its own (`down`, `rollback`, and a batch with a migration outside a transaction):
 *   `afterEach` records in it, since Knex writes the row of its list after that commit, and a crash may come in between.
 *   The trigger then records once more; a second bump is harmless.
 * - A migration outside a transaction (`transaction: false`, `disableTransactions`): it may die midway, with tables
 *   changed and no row written. `beforeEach` commits an event before the migration, held by Knex's lock: a relay bumps it
 *   again and again while that lock is taken, and once after (docs/protocol.md, rule 13).
 *
 * **Invariant.** After every commit of a migration, a bump of all scopes that it may have changed follows. For each way of
 * running a migration, an event commits with the change or before it, and an event that commits before stays until
 * Knex's lock, which outlives the change, is free. (A failed `Promise.all` leaves other statements running in a migration
 * that has ended, with the lock free: a migration must await all of its statements.)
 *
 * The next run (`beforeAll`) forgets the narrowed bumps of a failed run. The events that were held for that run then need
 * one more bump, and are no longer held: the lock belongs to the new run.
 *
 * The owner's hooks run inside these: `beforeAll` and `beforeEach` after, `afterEach` and `afterAll` before, so that the
 * events cover their changes too. An owner's `afterAll` outside a transaction runs when everything else is recorded, so a
 * global event of its own follows it.
 *
 * Without an outbox, and where `gencache.events` is `off`, the hooks record nothing. About 15 queries a batch, and 10 for
 * each migration outside a common transaction.
 */
import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { recordEvents } from '../outbox/record.js';
import type { Relation } from '../postgres/catalog.js';
import { recordDueBumps } from './due-bumps.js';
import { migrationNameOf } from './migration-name.js';
import { findMigrationLock, findMigrationsTable, notHeld, hasOutbox } from './migrations-table.js';
import { coveredByTrigger } from './migrations-trigger.js';
import { query } from '../postgres/query.js';

export type Hook = (db: Knex, migrations: unknown[]) => unknown;

/** The hooks of a Knex configuration, each optional. */
export interface Hooks {
  readonly beforeAll?: Hook;
  readonly beforeEach?: Hook;
  readonly afterEach?: Hook;
  readonly afterAll?: Hook;
}

const NO_CACHES: ReadonlySet<string> = new Set();

/** The hooks for these caches, around the owner's. Their only state is that of running batches. */
export function migrationHooks(caches: readonly string[], options: OutboxOptions, owner: Hooks): Required<Hooks> {
  /** The caches that the trigger covered when a batch began, by its transaction or its migrator's Knex. */
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
        // The held event covers the migration until the trigger has recorded the row that Knex writes next.
        if (!db.isTransaction && byTrigger.has(cache)) continue;
        // Where there is a trigger, the row of the migration uses up its narrowed bump.
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

  /** The caches that the trigger on this run's migrations table covers. */
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
    await query(db, statement, {
      cache,
      names: migrations.map((migration) => migrationNameOf(db, migration) ?? null),
      source: list === undefined ? 'migrations' : `${list.schema}.${list.name}`,
    });
  }

  /** Commits an event for each cache before a migration that has no transaction. */
  async function hold(db: Knex, migration: string | undefined): Promise<void> {
    const rows = await query<{ silent: boolean }>(
      db,
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
    // In place, so that the event keeps its transaction, from which its age follows.
    await query(
      db,
      `with forgotten as (
         delete from ${at}gencache_narrowed where cache = any(?) and migration = any(?)
       )
       update ${at}gencache_outbox set held_by = null
       where cache = any(?) and source = any(?) and held_by is not null`,
      [caches, known, caches, known],
    );
  }
}
