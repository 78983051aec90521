/** COMMIT was sent and its answer is missing: what `transaction` says then, and what is true. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { CommitUnknownError } from '../../lib/knex/index.js';
import { eventually } from '../support/deferred.js';
import { schemaOf } from '../support/postgres.js';
import { lendOutbox } from '../support/relay.js';
import { lendKnex, lendProxied } from '../support/knexes.js';
import { before as beforeQuery, recordQueries } from '../support/queries.js';
import { createItems, openShop, recorded, type Shop } from '../support/shop.js';
import { standbyless } from '../support/standbyless.js';
import type { Proxy } from '../support/proxy.js';
import { rejection } from '../support/rejection.js';

describe('a COMMIT without a reply', () => {
  let db: Knex;
  let proxy: Proxy;
  let own: Knex;
  let shop: Shop;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
    ({ db: own, proxy } = await lendProxied(schemaOf(db)));
    shop = openShop(own);
    await shop.warm();
  });

  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;

  for (const strict of [false, true]) {
    const kind = strict ? 'strict' : 'plain';

    it(`rejects when COMMIT never arrived, and nothing was committed (${kind})`, async () => {
      beforeQuery(own, 'COMMIT', () => {
        proxy.hold();
        setImmediate(() => {
          proxy.cut();
          proxy.release();
        });
      });
      const error = await rejection(shop.set(5, { strict }));
      expect(error).not.to.be.instanceOf(CommitUnknownError);
      expect(error.message).to.match(/Connection terminated|ECONNRESET/);
      expect(await price()).to.equal(0);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal(strict ? 'miss' : 'hit'); // an abort is lifted, too
    });

    it(`resolves after the bump when COMMIT arrived, by the outcome that PostgreSQL tells (${kind})`, async () => {
      let asked: string[] = [];
      beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
      const writing = recordQueries(own, async () => {
        expect(await shop.set(5, { strict })).to.deep.equal({
          ...{ value: 'now 5', bump: 'done' },
          ...(strict ? { strict: 'kept' } : {}),
        });
      }).then((queries) => (asked = queries));
      await eventually(async () => expect(await price()).to.equal(5));
      proxy.cut();
      proxy.releaseReplies();
      await writing;
      expect(asked.filter((sql) => sql.startsWith('select case when'))).to.have.length(1); // what became of it
      expect(await shop.outcome()).to.equal('miss');
      expect(await recorded(db)).to.deep.equal([]);
    });
  }

  it('rejects when the session ended before COMMIT, and nothing was committed', async () => {
    const error = await rejection(
      shop.cache.transaction(async (trx) => {
        await shop.change(5)(trx);
        const { rows } = await trx.raw<{ rows: { pid: number }[] }>('select pg_backend_pid() as pid');
        await db.raw('select pg_terminate_backend(?)', [rows[0]!.pid]);
      }),
    );
    expect(error).not.to.be.instanceOf(CommitUnknownError);
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
  });

  it('has the same outcome in a session with another time zone and date style', async () => {
    beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
    const writing = shop.cache.transaction(async (trx) => {
      await trx.raw(`set local timezone = 'Asia/Kathmandu'; set local datestyle = 'SQL, DMY'`);
      await shop.change(5)(trx);
    });
    await eventually(async () => expect(await price()).to.equal(5));
    proxy.cut();
    proxy.releaseReplies();
    expect(await writing).to.include({ bump: 'done' });
  });

  it('rejects with the violation of a deferred constraint, and nothing was committed', async () => {
    await db.raw('alter table item add constraint cheap unique (price) deferrable initially deferred');
    await db('item').insert({ id: 2, price: 5 });
    for (const strict of [false, true]) {
      const error = await rejection(shop.set(5, { strict }));
      expect(error).to.have.property('code', '23505');
      expect(await price()).to.equal(0);
      expect(await recorded(db)).to.deep.equal([]);
    }
  });

  it('rejects for a transaction that wrote nothing', async () => {
    beforeQuery(own, 'COMMIT', () => void proxy.dropReplies());
    const error = await rejection(shop.cache.transaction((trx) => trx('item')));
    expect(error).not.to.be.instanceOf(CommitUnknownError);
    expect(error.message).to.match(/Connection terminated|ECONNRESET/);
  });
});

describe('a COMMIT that waits for a standby', () => {
  let waiting: Awaited<ReturnType<typeof standbyless>>;
  let db: Knex;
  let own: Knex;
  let proxy: Proxy;
  let shop: Shop;

  before(async () => {
    waiting = await standbyless();
  });

  beforeEach(async () => {
    db = lendKnex(waiting.url, 'public');
    await db('item').update({ price: 0 });
    await db('gencache_outbox').delete();
    ({ db: own, proxy } = await lendProxied('public', waiting.url));
    shop = openShop(own, { limits: { quarantineMs: 1_200, settleMs: 1_500 } });
    await shop.warm();
  });

  afterEach(() => waiting.releaseAll(db));

  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;
  const set = (strict: boolean) => shop.cache.transaction(waiting.hangs(shop.change(5)), { strict });

  for (const strict of [false, true]) {
    const kind = strict ? 'strict' : 'plain';

    it(`resolves once it is over, after a lost connection (${kind})`, async () => {
      const writing = set(strict);
      const pid = await waiting.hanging(db);
      proxy.cut();
      const seen = recordQueries(own, () => writing);
      await shop.price.fetch({ item: 1 });
      expect(await price()).to.equal(0); // not yet
      if (strict) expect(await shop.outcome()).to.equal('quarantine');
      await waiting.release(db, pid);
      expect(await writing).to.include({ bump: 'done', ...(strict ? { strict: 'kept' } : {}) });
      expect((await seen).some((sql) => sql.startsWith('select case when'))).to.equal(true);
      expect(await price()).to.equal(5);
      expect(await shop.outcome()).to.equal('miss');
    });

    it(`has committed although its session was ended (${kind})`, async () => {
      const writing = set(strict);
      await db.raw('select pg_terminate_backend(?)', [await waiting.hanging(db)]);
      expect(await writing).to.include({ bump: 'done', ...(strict ? { strict: 'kept' } : {}) });
      expect(await price()).to.equal(5);
      expect(await shop.outcome()).to.equal('miss');
    });
  }

  it('has an unknown outcome when it never ends after a lost connection: its quarantine lapses, and a relay bumps', async () => {
    const writing = rejection(set(true));
    const pid = await waiting.hanging(db);
    proxy.cut();
    const error = await writing;
    expect(error).to.be.instanceOf(CommitUnknownError);
    expect(error).to.have.property('code', 'COMMIT_UNKNOWN');
    expect((error as CommitUnknownError).transactionId).to.match(/^[0-9]+$/);
    expect(error.message).to.match(
      /^The outcome of COMMIT is unknown: the connection was lost before the reply \((Connection terminated unexpectedly|read ECONNRESET)\), and PostgreSQL could not tell the outcome on another connection\./,
    );
    expect(await shop.outcome()).to.equal('quarantine'); // it may still commit
    await waiting.release(db, pid);
    await eventually(async () => expect(await recorded(db)).to.deep.equal(['item=1']));
    await eventually(async () => expect(await shop.outcome()).to.equal('miss'));
    expect(await shop.warm()).to.equal(5);
  });

  it('has an unknown outcome when the server stays out of reach until the time limit', async () => {
    beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
    const writing = rejection(shop.set(5));
    await eventually(async () => expect(await price()).to.equal(5));
    proxy.hold(); // new connections are accepted, and nothing passes
    proxy.cut();
    expect(await writing).to.be.instanceOf(CommitUnknownError);
    expect(await recorded(db)).to.deep.equal(['item=1']);
    proxy.cut();
    proxy.release();
  });

  it('has an unknown outcome after a crash of PostgreSQL, which may give the id again', async () => {
    const writing = rejection(set(false));
    const pid = await waiting.hanging(db);
    process.kill(pid, 'SIGKILL'); // all sessions end; the postmaster stays, and so does its start time
    expect(await writing).to.be.instanceOf(CommitUnknownError);
    await eventually(() => price());
    // Until that boot is noted, one crash can't be told from the next; the next transaction notes it.
    expect(await db('gencache_boot')).to.deep.equal([]);
    expect(await shop.set(6)).to.include({ bump: 'done' });
    expect(await db('gencache_boot')).to.have.length(1);
  });
});
