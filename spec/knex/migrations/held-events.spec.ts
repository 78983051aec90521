/** What a migration outside a transaction holds, and what becomes of that: its age is told by the transaction it is of. */
import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { narrowBump, waiveBump } from '../../../lib/knex/migrations/narrow-bump.js';
import { withGenerations } from '../../../lib/knex/migrations/with-generations.js';
import { recordEvents } from '../../../lib/knex/outbox/record.js';
import { rejection } from '../../support/rejection.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { before as beforeQuery } from '../../support/queries.js';
import { redisUrl, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';

describe('an event that a migration holds', () => {
  const LOCK = 'public.knex_migrations_lock';
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    cache = uniqueName();
  });

  const rows = () =>
    db('gencache_outbox').where({ cache }).orderBy(['path', 'xid']).select('xid', 'path', 'source', 'held_by');
  const hold = (source: string, heldBy = LOCK) =>
    recordEvents(db, [{ cache, path: '', source, operation: 'migration', heldBy }]);

  it('is released by the run after a failed one, and keeps its transaction', async () => {
    const held: unknown[] = [];
    let runs = 0;
    const migration = {
      config: { transaction: false },
      async up() {
        held.push(await rows());
        if (++runs === 1) throw new Error('died midway');
      },
      async down() {},
    };
    const migrating = knex(
      withGenerations(
        {
          client: 'pg',
          connection: databaseUrl(schemaOf(db)),
          pool: { min: 0, max: 1 },
          migrations: {
            migrationSource: {
              getMigrations: async () => ['m1'],
              getMigrationName: (name: string) => name,
              getMigration: async () => migration,
            },
          },
          log: { warn() {}, error() {}, deprecate() {}, debug() {} },
        },
        { cache },
      ),
    );
    lend({ what: 'a Knex that migrates', close: () => migrating.destroy() });
    await rejection(migrating.migrate.latest());
    await migrating.migrate.latest();
    const [[first], [before, again]] = held as [[Held], [Held, Held]];
    expect(first).to.include({ path: '', source: 'm1' });
    expect(first.held_by).to.be.a('string');
    expect(before).to.deep.equal({ ...first, held_by: null });
    expect(again).to.include({ source: 'm1', held_by: first.held_by });
    expect(again.xid).not.to.equal(first.xid);
  });

  it('passes its transaction to the narrowed events, the oldest of several', async () => {
    const { id: oldest } = await hold('m1');
    await hold('m1');
    const { id: other } = await hold('m1', 'public.other_lock');
    const { id: unconcerned } = await hold('m2');
    await narrowBump(db, { cache, migration: 'm1', to: [{ customer: 1 }, { customer: 2 }] });
    const held = { source: 'm1', held_by: LOCK, xid: oldest };
    expect(await rows()).to.deep.equal([
      { path: '', source: 'm2', held_by: LOCK, xid: unconcerned },
      { ...held, path: 'customer=1' },
      { ...held, path: 'customer=1', held_by: 'public.other_lock', xid: other },
      { ...held, path: 'customer=2' },
      { ...held, path: 'customer=2', held_by: 'public.other_lock', xid: other },
    ]);
  });

  for (const [what, narrow, left] of [
    ['narrows', (trx: Knex) => narrowBump(trx, { cache, migration: 'm1', to: [{ item: 1 }] }), ['item=1']],
    ['waives', (trx: Knex) => waiveBump(trx, { cache, migration: 'm1' }), []],
  ] as const) {
    it(`does not make a migration that ${what} it wait for a relay that is bumping it`, async () => {
      await db.raw('create table lock (is_locked int)');
      await db('lock').insert({ is_locked: 1 });
      const { id: xid } = await hold('m1', 'lock');
      const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
      const own = lendKnex(databaseUrl(), schemaOf(db));
      const relaying = async () => {
        const { rows: sessions } = await db.raw<{ rows: unknown[] }>(
          `select from pg_stat_activity where application_name = ? and state = 'idle in transaction'`,
          [schemaOf(db)],
        );
        return sessions.length;
      };
      beforeQuery(own, 'select format(', () => redis.hold());
      const relay = lendRelay({ db: own, cache, url: redis.url, bumpDeadlineMs: 15_000 });
      await eventually(async () => expect(await relaying()).to.equal(1));
      await db.transaction(async (trx) => {
        await trx.raw(`set local lock_timeout = '2s'`);
        await narrow(trx);
      });
      expect(await relaying()).to.equal(1);
      expect((await rows()).map(({ path, ...row }) => [path, row])).to.deep.equal(
        left.map((path) => [path, { xid, source: 'm1', held_by: 'lock' }]),
      );
      redis.release();
      await db('lock').update({ is_locked: 0 });
      await eventually(async () => expect(await rows()).to.deep.equal([]));
      expect(relay.status).to.include({ failures: 0, deadLetters: 0 });
    });
  }
});

interface Held {
  readonly xid: string;
  readonly path: string;
  readonly source: string;
  readonly held_by: string | null;
}
