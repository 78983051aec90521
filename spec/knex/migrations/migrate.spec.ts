import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { migrate, type MigrateOptions } from '../../../lib/knex/index.js';
import { READ_DEADLINE_MS } from '../../support/cache.js';
import { lend } from '../../support/lenders.js';
import { lendDatabase } from '../../support/postgres.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';

type Migration = Knex.Migration & { readonly config?: { readonly transaction?: boolean } };

/** A migration source of migrations by name. */
function source(migrations: Record<string, Migration>): MigrateOptions {
  return {
    migrationSource: {
      getMigrations: async () => Object.keys(migrations),
      getMigrationName: (name: string) => name,
      getMigration: async (name: string) => migrations[name]!,
    },
  };
}

const creates = (table: string): Migration => ({
  up: (db) => db.schema.createTable(table, (columns) => columns.increments()),
  down: (db) => db.schema.dropTable(table),
});
const fails: Migration = {
  up: async (db) => {
    await db.schema.createTable('half_done', (columns) => columns.increments());
    throw new Error('died midway');
  },
  down: async () => {},
};

describe('migrate', () => {
  let db: Knex;
  let cache: GenerationalCache;
  /** For each bump, whether the table of the migration was visible to another connection when it began. */
  let bumps: string[];

  beforeEach(async () => {
    db = await lendDatabase();
    db.client.logger.warn = () => {};
    const store = redisStore(lendRedis());
    cache = new GenerationalCache({ name: uniqueName(), store, readDeadlineMs: READ_DEADLINE_MS });
    lend({ what: 'the cache', close: () => cache.close() });
    bumps = [];
    cache.on('bump', ({ namespace, cause }) => bumps.push(`${namespace}: ${cause}`));
  });

  it('bumps global once after migrations ran, and returns what Knex returned', async () => {
    const ran = await migrate(db, cache, source({ one: creates('a'), two: creates('b') }));
    expect(ran).to.deep.equal([1, ['one', 'two']]);
    expect(bumps).to.deep.equal(['global: migration']);
  });

  it('bumps after the commit: other sessions see the change when the bump arrives', async () => {
    let visible: boolean | undefined;
    const store = redisStore(lendRedis());
    const watching = new GenerationalCache({
      name: uniqueName(),
      store: {
        ...store,
        read: store.read.bind(store),
        close: () => store.close(),
        async bump() {
          visible = await db.schema.hasTable('a');
          return ['missing'];
        },
      },
    });
    lend({ what: 'the cache', close: () => watching.close() });
    await migrate(db, watching, source({ one: creates('a') }));
    expect(visible).to.equal(true);
  });

  it('bumps nothing when there is nothing to do', async () => {
    const migrations = source({ one: creates('a') });
    await db.migrate.latest(migrations);
    expect(await migrate(db, cache, migrations)).to.deep.equal([1, []]);
    expect(bumps).to.deep.equal([]);
  });

  for (const run of ['down', 'rollback', 'rollback all'] as const) {
    it(`bumps after ${run}`, async () => {
      const migrations = source({ one: creates('a') });
      await db.migrate.latest(migrations);
      expect(await migrate(db, cache, { ...migrations, run })).to.deep.equal([1, ['one']]);
      expect(bumps).to.deep.equal(['global: migration']);
      expect(await migrate(db, cache, { ...migrations, run })).to.deep.equal([0, []]);
      expect(bumps).to.have.length(1);
    });
  }

  it('bumps after up, one migration at a time', async () => {
    const migrations = source({ one: creates('a'), two: creates('b') });
    expect(await migrate(db, cache, { ...migrations, run: 'up' })).to.deep.equal([1, ['one']]);
    expect(await migrate(db, cache, { ...migrations, run: 'up' })).to.deep.equal([2, ['two']]);
    expect(bumps).to.have.length(2);
  });

  async function failing(migrations: Record<string, Migration>, options: MigrateOptions = {}): Promise<void> {
    const error = await migrate(db, cache, { ...source(migrations), ...options }).catch((thrown: unknown) => thrown);
    expect((error as Error).message).to.equal('died midway');
  }

  it('bumps nothing when a batch in one transaction failed: nothing changed', async () => {
    await failing({ one: creates('a'), two: fails });
    expect(await db.schema.hasTable('a')).to.equal(false);
    expect(bumps).to.deep.equal([]);
  });

  it('bumps when a `transaction: false` migration died midway, with no row in Knex’s list', async () => {
    await failing({ one: { ...fails, config: { transaction: false } } });
    expect(await db.schema.hasTable('half_done')).to.equal(true);
    expect(bumps).to.deep.equal(['global: migration']);
  });

  it('bumps when an earlier `transaction: false` migration ran and a later one failed', async () => {
    await failing({ one: { ...creates('a'), config: { transaction: false } }, two: fails });
    expect(await db.schema.hasTable('a')).to.equal(true);
    expect(bumps).to.deep.equal(['global: migration']);
  });

  it('bumps when an earlier migration committed by itself and a later one failed', async () => {
    await failing({ one: creates('a'), two: fails, three: { ...creates('c'), config: { transaction: false } } });
    expect(await db.schema.hasTable('a')).to.equal(true);
    expect(bumps).to.deep.equal(['global: migration']);
  });

  it('bumps when disableTransactions left a failed migration half done', async () => {
    await failing({ one: fails }, { disableTransactions: true });
    expect(bumps).to.deep.equal(['global: migration']);
  });

  it('bumps nothing when another process holds the migration lock', async () => {
    await db.migrate.latest(source({ one: creates('a') }));
    await db('knex_migrations_lock').update({ is_locked: 1 });
    const migrations = source({ one: creates('a'), two: { ...creates('b'), config: { transaction: false } } });
    const error = await migrate(db, cache, migrations).catch((thrown: unknown) => thrown);
    expect((error as Error).message).to.equal('Migration table is already locked');
    expect(bumps).to.deep.equal([]);
  });

  it('runs the owner’s own hooks too', async () => {
    const seen: unknown[] = [];
    const hooked = { ...source({ one: creates('a') }), beforeEach: (_: Knex, names: unknown) => void seen.push(names) };
    await migrate(db, cache, hooked);
    expect(seen).to.deep.equal([['one']]);
  });

  it('rejects with the names of the migrations when the bump fails', async () => {
    const server = await privateRedis();
    const unreachable = new GenerationalCache({
      name: uniqueName(),
      store: redisStore(lendRedis({ url: server.url })),
      bumpDeadlineMs: 50,
    });
    lend({ what: 'the cache', close: () => unreachable.close() });
    await server.stop();
    const error = await migrate(db, unreachable, source({ one: creates('a') })).catch((thrown: unknown) => thrown);
    expect(error).to.deep.include({ name: 'MigrationBumpError', code: 'MIGRATION_BUMP', ran: [1, ['one']] });
    expect((error as Error).message).to.match(
      /^The global bump after migrations \(one\) failed: .* Cached values from before stay readable\. /,
    );
  });

  it('rejects a transaction in place of a Knex instance', async () => {
    await db.transaction(async (trx) => {
      const error = await migrate(trx, cache).catch((thrown: unknown) => thrown);
      expect((error as Error).message).to.equal(
        '`db` must be a Knex instance, since the bump comes after the commit of the migrations, but got a transaction. ' +
          'Pass the Knex instance itself.',
      );
    });
  });
});
