/**
 * Connections to PostgreSQL that have died without a word: packets are lost both ways, also that the server has ended
 * the session. A process that waits on one gives it up in time, and goes on with another.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { CommitUnknownError } from '../../../../lib/knex/index.js';
import { formatGeneration, nonce } from '../../../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../../../lib/model/key.js';
import { rejection } from '../../../support/rejection.js';
import { deferred, eventually } from '../../../support/deferred.js';
import { lendKnex, lendProxied } from '../../../support/knexes.js';
import { lend } from '../../../support/lenders.js';
import { databaseUrl, schemaOf } from '../../../support/postgres.js';
import { Proxy } from '../../../support/proxy.js';
import { before as beforeQuery } from '../../../support/queries.js';
import { lendRedis, uniqueName } from '../../../support/redis.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';
import { createItems, openShop, recorded, type Shop } from '../../../support/shop.js';
import { standbyless } from '../../../support/standbyless.js';

/** Connections that there are die without a word; those to come are led to this PostgreSQL by another way. */
async function die(proxy: Proxy, url = databaseUrl()): Promise<void> {
  proxy.hold();
  await takeOver(proxy, url);
}

/** Who connects from now on is led past what this proxy holds. */
async function takeOver(proxy: Proxy, url = databaseUrl()): Promise<void> {
  proxy.refuse();
  const next = new Proxy(proxy.port, Number(new URL(url).port || 5432), { protocol: 'postgres' });
  await next.accept();
  lend({ what: 'the proxy that took over', close: () => next.close() });
}

describe('a relay whose connection dies without a word', () => {
  let db: Knex;
  let own: Knex;
  let proxy: Proxy;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    ({ db: own, proxy } = await lendProxied(schemaOf(db)));
    cache = uniqueName();
  });

  /** What is sent from this query on is lost, on the connections that there are. */
  const dieBefore = (query: string) => {
    const died = deferred<void | PromiseLike<void>>();
    beforeQuery(own, query, () => {
      died.resolve(die(proxy));
    });
    return died.promise;
  };
  const record = (heldBy: string | null = null) =>
    db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE', held_by: heldBy });
  const drained = () => eventually(async () => expect(await recorded(db)).to.deep.equal([]));
  /** Tells how often the scope was bumped. */
  async function mint() {
    const redis = lendRedis();
    const key = generationKey(keyPrefix(cache), 'item=1');
    await redis.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    return async () => Number.parseInt((await redis.get(key)) ?? '-1', 10);
  }
  async function start() {
    // With a bound an empty outbox is surveyed, and not claimed from.
    const relay = lendRelay({ db: own, cache, pollMs: 20, silenceMaxMs: 500, maxStalenessMs: 60_000 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    return relay;
  }

  for (const [when, query, bumps] of [
    ['while it was idle, so that BEGIN and the claim are lost', 'BEGIN', 1],
    ['after its bump', 'for share', 2],
    ['at COMMIT', 'COMMIT', 2],
  ] as const) {
    it(`gives the connection up, and bumps and deletes the event on another one: ${when}`, async () => {
      const bumped = await mint();
      const relay = await start();
      const died = dieBefore(query);
      await record();
      await died;
      await drained();
      await eventually(() => expect(relay.status).to.include({ events: 1, trusted: true }));
      expect(relay.status.failures).to.be.greaterThan(0);
      expect(await bumped()).to.equal(bumps);
    });
  }

  it('gives the connection up while it bumps a held event, and bumps and deletes it on another one', async () => {
    const bumped = await mint();
    const relay = await start();
    const died = dieBefore('from pg_class');
    await record('gone');
    await died;
    await drained();
    await eventually(() => expect(relay.status).to.include({ events: 1, trusted: true }));
    expect(await bumped()).to.be.greaterThan(0);
  });

  it('gives the connection up during a survey, and repeats that on another one', async () => {
    const bumped = await mint();
    const relay = await start();
    const failed = new Promise<Error>((resolve) => {
      relay.on('failure', ({ error }) => resolve(error));
    });
    await dieBefore('with recursive tail');
    await record();
    expect((await failed).name).to.equal('KnexTimeoutError');
    await drained();
    expect(await bumped()).to.equal(1);
  });
});

describe('a writer whose connection dies without a word', () => {
  const SETTLE_MS = 600;
  let db: Knex;
  let own: Knex;
  let proxy: Proxy;
  let shop: Shop;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
    ({ db: own, proxy } = await lendProxied(schemaOf(db)));
    shop = openShop(own, { limits: { settleMs: SETTLE_MS, quarantineMs: 2_000 } });
    await shop.warm();
  });

  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;
  const kept = (strict: boolean) => (strict ? { strict: 'kept' } : {});

  for (const strict of [false, true]) {
    const kind = strict ? 'strict' : 'plain';

    it(`resolves after the bump when COMMIT was carried out (${kind})`, async () => {
      beforeQuery(own, 'COMMIT', () => {
        proxy.holdReplies();
        void takeOver(proxy);
      });
      expect(await shop.set(5, { strict })).to.deep.equal({ value: 'now 5', bump: 'done', ...kept(strict) });
      expect(await price()).to.equal(5);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal('miss'); // and under no quarantine
      expect(await shop.warm()).to.equal(5);
      expect(await shop.set(6, { strict })).to.include({ bump: 'done', ...kept(strict) });
    });

    it(`rejects once PostgreSQL has ended the session, when COMMIT did not arrive (${kind})`, async () => {
      const died = deferred<unknown>();
      beforeQuery(own, 'COMMIT', () => {
        died.resolve(die(proxy));
      });
      const writing = rejection(shop.set(5, { strict }));
      await died.promise;
      // A strict one's is limited by the commit itself.
      if (!strict) {
        await db.raw(
          `select pg_terminate_backend(pid) from pg_stat_activity
           where application_name = ? and state = 'idle in transaction'`,
          [schemaOf(db)],
        );
      }
      const error = await writing;
      expect(error).not.to.be.instanceOf(CommitUnknownError);
      expect(error.message).to.match(/Connection terminated|ECONNRESET/);
      expect(await price()).to.equal(0);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal(strict ? 'miss' : 'hit'); // an abort is lifted, too
    });
  }

  it('rejects with an unknown outcome when all connections die under COMMIT', async () => {
    beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
    expect(await rejection(shop.set(5))).to.be.instanceOf(CommitUnknownError);
    expect(await price()).to.equal(5);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    proxy.cut(); // a pool waits for what is in use
    proxy.release();
  });

  it('resolves with `pending` when the connections die after COMMIT', async () => {
    beforeQuery(own, 'gencache_outbox as event', () => proxy.hold());
    const { error, ...result } = await shop.set(5);
    expect(result).to.deep.equal({ value: 'now 5', bump: 'pending' });
    expect(error!.message).to.equal(
      `Settling after the commit took longer than ${2 * SETTLE_MS} ms. The events stay in the outbox; a relay bumps them.`,
    );
    expect(await price()).to.equal(5);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    proxy.cut(); // a pool waits for what is in use
    proxy.release();
  });
});

describe('a writer whose COMMIT takes longer than settleMs', () => {
  let waiting: Awaited<ReturnType<typeof standbyless>>;
  let db: Knex;

  before(async () => {
    waiting = await standbyless();
  });

  beforeEach(() => {
    db = lendKnex(waiting.url, 'public');
  });

  afterEach(() => waiting.releaseAll(db));

  for (const strict of [false, true]) {
    it(`waits for COMMIT (${strict ? 'strict' : 'plain'})`, async () => {
      const own = lendKnex(waiting.url, 'public');
      const shop = openShop(own, { limits: { settleMs: 500 } });
      let asked = 0;
      own.on('query', ({ sql }: { sql: string }) => void (sql.includes('pg_xact_status') && asked++));
      const writing = shop.cache.transaction(waiting.hangs(shop.change(5)), { strict });
      writing.catch(() => {});
      const pid = await waiting.hanging(db);
      // Longer than to be asked about, and to be settled after that, together.
      const untilMs = performance.now() + 4 * 500;
      await eventually(() => expect(performance.now()).to.be.greaterThan(untilMs));
      expect(asked).to.be.within(1, 10); // every 500 ms; a COMMIT that was cut is asked about all the time
      await waiting.release(db, pid);
      expect(await writing).to.include({ bump: 'done', ...(strict ? { strict: 'kept' } : {}) });
    });
  }
});
