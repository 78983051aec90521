/**
 * Reads, transactions, strict commits and a relay through a real PgBouncer in transaction mode, in which each transaction may get
 * another session: no setting may outlast its transaction, and no statement may be prepared. Skipped where PgBouncer is missing
 * (Debian: `apt-get install pgbouncer`).
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, onChangeOf, removeTriggers } from '../../../lib/knex/index.js';
import { freshnessKey, keyPrefix } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { lend } from '../../support/lenders.js';
import { privatePostgres } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { type PgBouncer, pgbouncerBinary, startPgBouncer } from '../../support/servers/pgbouncer.js';
import { createItems, openShop, recorded } from '../../support/shop.js';

const SESSIONS = 3;
const ITEMS = 10;

describe('through PgBouncer in transaction mode', () => {
  let bouncer: PgBouncer;
  let directUrl: string;
  let direct: Knex;
  let db: Knex;

  before(async function () {
    const binary = pgbouncerBinary();
    if (binary === undefined) {
      process.stderr.write('    PgBouncer is missing: its specs are skipped. Debian: apt-get install pgbouncer\n');
      this.skip();
    }
    const server = await privatePostgres({ for: 'suite' });
    const setUp = lendKnex(server.url);
    await installOutbox(setUp);
    await createItems(setUp, Object.fromEntries(Array.from({ length: ITEMS }, (_, i) => [i + 1, 0])));
    await setUp.raw(
      `create table tag (id int primary key, name text); insert into tag values (9, 'new');
       create table tagged (tag_id int, item_id int); insert into tagged values (9, 3)`,
    );
    await setUp.destroy();
    bouncer = await startPgBouncer({ binary, port: server.port, poolSize: SESSIONS });
    lend({ what: 'PgBouncer', close: () => bouncer.stop() }, 'suite');
    directUrl = server.url;
  });

  beforeEach(async () => {
    direct = lendKnex(directUrl);
    db = lendKnex(bouncer.url);
    await direct('item').update({ price: 0 });
  });

  const waiting = (cache: string) => direct('gencache_outbox').where({ cache }).pluck<string[]>('path');
  /** The sessions of the pooler. */
  async function sessions() {
    const { rows } = await direct.raw<{ rows: { pid: number }[] }>(
      `select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`,
    );
    return rows.map(({ pid }) => pid);
  }
  /** The settings that a session of the pooler has kept. Those two are each transaction's own. */
  async function changedSettings() {
    const held = Array.from({ length: SESSIONS }, () => db.transaction());
    const transactions = await Promise.all(held);
    const found = await Promise.all(
      transactions.map(async (trx) => {
        const { rows } = await trx.raw<{ rows: { name: string; pid: number }[] }>(
          `select name, pg_backend_pid() as pid from pg_settings
           where source = 'session' and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',
             'transaction_isolation', 'transaction_read_only')`,
        );
        await trx.rollback();
        return rows.map(({ name }) => name);
      }),
    );
    return found.flat();
  }

  it('serves the reads of more clients than sessions', async () => {
    const shops = Array.from({ length: 4 }, () => openShop(lendKnex(bouncer.url)));
    const read = await Promise.all(
      shops.flatMap((shop) => Array.from({ length: ITEMS }, (_, i) => shop.price.fetch({ item: i + 1 }))),
    );
    expect(read).to.deep.equal(Array.from({ length: 4 * ITEMS }, () => 0));
    expect(await sessions()).to.have.length.within(1, SESSIONS);
  });

  for (const strict of [false, true]) {
    it(`commits ${strict ? 'strict' : 'plain'} transactions side by side, bumped and deleted, and leaves no setting behind`, async () => {
      const shop = openShop(db);
      for (let item = 1; item <= ITEMS; item++) await shop.warm(item);
      const done = await Promise.all(
        Array.from({ length: ITEMS }, (_, i) => shop.cache.transaction(shop.change(5, i + 1), { strict })),
      );
      expect(new Set(done.map(({ bump, strict: kept }) => `${bump} ${String(kept)}`))).to.deep.equal(
        new Set([strict ? 'done kept' : 'done undefined']),
      );
      for (let item = 1; item <= ITEMS; item++) {
        expect(await shop.outcome(item)).to.equal('miss');
        expect(await shop.warm(item)).to.equal(5);
      }
      expect(await recorded(direct)).to.deep.equal([]);
      expect(await changedSettings()).to.deep.equal([]);
    });
  }

  it('has a relay that bumps what triggers record and look up, keeps a bound, and leaves no setting behind', async () => {
    const cache = uniqueName();
    await onChangeOf(direct, 'item', { cache }).bump({ item: 'id' }).install();
    await onChangeOf(direct, 'tagged', { cache }).bump({ item: 'item_id' }).install();
    await onChangeOf(direct, 'tag', { cache }).lookUp('tagged', { tag_id: 'id' }).bump({ item: 'item_id' }).install();
    const shop = openShop(db, { name: cache });
    for (let item = 1; item <= ITEMS; item++) await shop.warm(item);
    const relay = lendRelay({ db: lendKnex(bouncer.url), cache, maxStalenessMs: 2_000, pollMs: 20 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    const bumped: string[] = [];
    relay.on('batch', ({ paths }) => bumped.push(...paths));
    await lendKnex(bouncer.url)('tag').update({ name: 'sale' });
    await eventually(() => expect(bumped).to.deep.equal(['item=3']));
    const writers = Array.from({ length: 4 }, () => lendKnex(bouncer.url));
    for (let price = 1; price <= 20; price++) {
      await Promise.all(
        writers.map((writer) =>
          writer('item')
            .update({ price })
            .where('id', 1 + (price % ITEMS)),
        ),
      );
    }
    await eventually(async () => expect(await waiting(cache)).to.deep.equal([]), { withinMs: 5_000 });
    const rows = await direct<{ id: number; price: number }>('item');
    for (const { id, price } of rows) expect(await shop.warm(id)).to.equal(price);
    expect(await lendRedis().exists(freshnessKey(keyPrefix(cache), 2_000))).to.equal(1);
    expect(relay.status).to.include({ failures: 0, deadLetters: 0, repairs: 1 });
    expect(await changedSettings()).to.deep.equal([]);
    await relay.stop();
    for (const table of ['item', 'tag', 'tagged']) await removeTriggers(direct, table, { cache });
  });

  it('loses its sessions: the relay and the writers go on, and no event is lost', async () => {
    const cache = uniqueName();
    const shop = openShop(db, { name: cache });
    await shop.warm();
    const relay = lendRelay({ db: lendKnex(bouncer.url), cache, pollMs: 20 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    for (const pid of await sessions()) await direct.raw('select pg_terminate_backend(?)', [pid]);
    await eventually(async () => expect((await shop.set(7)).bump).to.equal('done'));
    await direct('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
    await eventually(async () => expect(await waiting(cache)).to.deep.equal([]));
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    expect(await shop.warm()).to.equal(7);
    await relay.stop();
  });
});
