/**
 * Ladder step 4b, docs/protocol.md, rule 12: once a strict commit is visible, nothing older is read. COMMIT is held open by a
 * standby that never answers: it is under way, and no session sees its changes.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { QuarantineError } from '../../lib/knex/index.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { observe } from '../../lib/testing/index.js';
import { rejection } from '../support/rejection.js';
import { recordCommands } from '../support/commands.js';
import { deferred, eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, redisUrl } from '../support/redis.js';
import { lendRelay } from '../support/relay.js';
import { lendKnex, lendProxied } from '../support/knexes.js';
import { before as beforeQuery, recordQueries } from '../support/queries.js';
import { openShop, recorded, type Shop, type ShopOptions } from '../support/shop.js';
import { standbyless } from '../support/standbyless.js';
import { watch } from '../support/watch.js';

describe('a strict commit', () => {
  let postgres: Awaited<ReturnType<typeof standbyless>>;
  let db: Knex;
  /** A process that writes, and one that reads. */
  let writer: Shop;
  let reader: Shop;

  before(async () => {
    postgres = await standbyless();
  });

  beforeEach(async () => {
    db = lendKnex(postgres.url, 'public');
    await db('item').delete();
    await db('item').insert([
      { id: 1, price: 0 },
      { id: 2, price: 0 },
    ]);
    await db('gencache_outbox').delete();
    await open();
  });

  afterEach(() => postgres.releaseAll(db));

  const open = async (options: ShopOptions = {}, readers: ShopOptions = {}) => {
    writer = openShop(db, options);
    reader = openShop(db, { name: writer.name, ...readers });
    await reader.warm(1);
    await reader.warm(2);
  };
  const price = async () => ((await db('item').where({ id: 1 })) as [{ price: number }])[0].price;
  /** A strict commit that hangs in COMMIT, until it is let go on. */
  const hang = async (work: (trx: Knex.Transaction) => Promise<unknown>, ...others: number[]) => {
    const committed = writer.cache.transaction(postgres.hangs(work), { strict: true });
    committed.catch(() => {});
    const pid = await postgres.hanging(db, ...others);
    const goOn = async () => {
      await postgres.release(db, pid);
      return committed;
    };
    return { pid, committed, goOn };
  };
  /** A reader fills, and from then on hits, what is no longer under quarantine. */
  const fillAnew = async () => {
    await eventually(async () => expect(await reader.outcome()).to.equal('miss'));
    await reader.warm();
    expect(await reader.outcome()).to.equal('hit');
  };

  it('keeps readers out of the cache from before it is visible until after its lift', async () => {
    const { goOn } = await hang(writer.change(5));
    expect(await reader.outcome(1)).to.equal('quarantine');
    expect(await reader.outcome(2)).to.equal('hit');
    expect(await reader.warm()).to.equal(0);
    expect(await goOn()).to.deep.equal({ value: undefined, bump: 'done', strict: 'kept' });
    expect(await reader.outcome()).to.equal('miss');
    expect(await reader.warm()).to.equal(5);
    expect(await recorded(db)).to.deep.equal([]);
  });

  it('is never followed by an older value for readers that fetch all the time', async () => {
    const readers = [reader, writer, openShop(db, { name: writer.name })].map((shop) => watch(shop, db));
    for (let to = 1; to <= 30; to++) {
      expect(await writer.set(to, { strict: true })).to.include({ bump: 'done', strict: 'kept' });
      const target = readers[0]!.reads + 2;
      await eventually(() => expect(readers[0]!.reads).to.be.at.least(target));
    }
    for (const each of readers) {
      await each.end();
      expect(each.stale).to.deep.equal([]);
    }
    expect(reader.cache.statistics.total('hits')).to.be.greaterThan(0);
  });

  it('differs from a plain commit, after which readers may find an older value until the bump', async () => {
    const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
    await open({ redis: redis.url, bumpDeadlineMs: 10_000 });
    const seen = watch(reader, db);
    beforeQuery(db, 'COMMIT', () => redis.hold());
    const writing = writer.set(5);
    await eventually(() => expect(seen.stale[0]).to.deep.equal({ got: 0, least: 5 }));
    redis.release();
    expect(await writing).to.deep.equal({ value: 'now 5', bump: 'done' });
    await seen.end();
  });

  it('costs one query and one command more than a plain commit', async () => {
    let queries: string[] = [];
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        queries = await recordQueries(db, () => writer.set(5, { strict: true }));
      },
      { from: writer.name },
    );
    expect(queries).to.deep.equal([
      'BEGIN;',
      'update "item" set "price', // the work's
      'insert into gencache_out', // the work's bump
      'set constraints all imme', // deferred triggers now; silence is limited from here; which transaction this is
      'select event.path, event', // what to put under quarantine
      'COMMIT;',
      'select event.path, event', // what to bump
      'with authority as (selec', // deletes that
    ]);
    expect(commands.map(([command]) => command)).to.deep.equal([
      'EVAL', // quarantines
      'EVAL', // lifts, which bumps
    ]);
  });

  it('sends no command when the work wrote nothing', async () => {
    const { commands, result } = await recordCommands(
      redisUrl(),
      () => writer.cache.transaction((trx) => trx('item').pluck('price'), { strict: true }),
      { from: writer.name },
    );
    expect(result).to.deep.equal({ value: [0, 0], bump: 'done', strict: 'kept' });
    expect(commands).to.deep.equal([]);
  });

  it('sends two commands before and two after COMMIT for 1,001 scopes', async () => {
    const ids = Array.from({ length: 1_001 }, (_, item) => ({ item: item + 1 }));
    const { commands, result } = await recordCommands(
      redisUrl(),
      () => writer.cache.transaction((trx) => writer.items.bumpMany(ids, { trx }), { strict: true }),
      { from: writer.name },
    );
    expect(result).to.include({ bump: 'done', strict: 'kept' });
    expect(commands.map(([command]) => command)).to.have.length(4);
    expect(await reader.outcome()).to.equal('miss');
  });

  it('sends no command and changes nothing when the work fails', async () => {
    const thrown = new Error('on purpose');
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        const failing = writer.cache.transaction(
          async (trx) => {
            await writer.change(5)(trx);
            throw thrown;
          },
          { strict: true },
        );
        expect(await rejection(failing)).to.equal(thrown);
      },
      { from: writer.name },
    );
    expect(commands).to.deep.equal([]);
    expect(await reader.outcome()).to.equal('hit');
  });

  it('lifts its quarantine when COMMIT fails: readers load the old value', async () => {
    const { db: own, proxy } = await lendProxied('public', postgres.url);
    const proxied = openShop(own, { name: writer.name });
    const committing = deferred();
    beforeQuery(own, 'COMMIT', () => {
      proxy.hold();
      committing.resolve();
    });
    const writing = rejection(
      proxied.cache.transaction(
        async (trx) => {
          await trx('item');
          await proxied.change(5)(trx);
        },
        { strict: true, isolationLevel: 'serializable' },
      ),
    );
    await committing.promise;
    expect(await reader.outcome()).to.equal('quarantine');
    await db.transaction(
      async (other) => {
        await other('item');
        await other('item').where({ id: 2 }).update({ price: 1 });
      },
      { isolationLevel: 'serializable' },
    );
    proxy.release();
    expect(await writing).to.have.property('code', '40001');
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
    expect(await reader.outcome()).to.equal('miss');
    expect(await reader.warm()).to.equal(0);
    expect(await reader.outcome()).to.equal('hit');
  });

  describe('with renewals of its quarantine', () => {
    it('keeps its quarantine for as long as COMMIT takes', async () => {
      await open({ limits: { quarantineMs: 600 } });
      const { goOn } = await hang(writer.change(5));
      const untilMs = performance.now() + 1_500;
      while (performance.now() < untilMs) expect(await reader.outcome()).to.equal('quarantine');
      expect(await goOn()).to.include({ bump: 'done', strict: 'kept' });
      expect(await reader.outcome()).to.equal('miss');
    });

    it('is degraded when a renewal finds its quarantine evicted, and keeps readers away again', async () => {
      await open({ limits: { quarantineMs: 800 } });
      const { goOn } = await hang(writer.change(5));
      await lendRedis().del(keyOf(writer));
      await eventually(async () => expect(await reader.outcome()).to.equal('quarantine'));
      expect(await goOn()).to.deep.equal({ value: undefined, bump: 'done', strict: 'degraded' });
      expect(await reader.warm()).to.equal(5);
    });

    it('is degraded when a renewal put an evicted quarantine back and its reply was lost', async () => {
      const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
      await open({ redis: redis.url, limits: { quarantineMs: 2_000 } });
      const { goOn } = await hang(writer.change(5));
      await lendRedis().del(keyOf(writer));
      await fillAnew(); // what is not yet committed
      await redis.dropReplies(); // of the renewal
      await eventually(async () => expect(await reader.outcome()).to.equal('quarantine'));
      expect(await goOn()).to.include({ bump: 'done', strict: 'degraded' });
      expect(await reader.warm()).to.equal(5);
    });
  });

  describe('beside another writer of one scope', () => {
    for (const first of ['the one', 'the other']) {
      it(`keeps readers out of the cache until both are visible, ${first} first`, async () => {
        const seen = watch(reader, db);
        const one = await hang(writer.change(5, 1));
        const other = await hang((trx) => writer.items.bump({ item: 1 }, { trx }), one.pid);
        const order = first === 'the one' ? [one, other] : [other, one];
        expect(await order[0]!.goOn()).to.include({ bump: 'done', strict: 'kept' });
        expect(await reader.outcome()).to.equal('quarantine');
        expect(await order[1]!.goOn()).to.include({ bump: 'done', strict: 'kept' });
        await seen.end();
        expect(seen.stale).to.deep.equal([]);
        expect(await reader.warm()).to.equal(5);
        expect(await reader.outcome()).to.equal('hit');
      });
    }
  });

  it('stays under quarantine, and is kept, when a bump comes while it commits', async () => {
    const { goOn } = await hang(writer.change(5));
    await reader.items.bump({ item: 1 });
    await reader.cache.bump();
    expect(await reader.outcome()).to.equal('quarantine');
    expect(await goOn()).to.include({ bump: 'done', strict: 'kept' });
    expect(await reader.warm()).to.equal(5);
  });

  it('lifts its quarantine when a relay has bumped and deleted its events first', async () => {
    const relay = lendRelay({ db, cache: writer.name });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    const { db: own, proxy } = await lendProxied('public', postgres.url);
    const proxied = openShop(own, { name: writer.name });
    const seen = watch(reader, db);
    beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
    const writing = proxied.set(5, { strict: true });
    await eventually(() => expect(relay.status.events).to.equal(1));
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    expect(await reader.outcome()).to.equal('quarantine');
    proxy.releaseReplies();
    expect(await writing).to.include({ bump: 'done', strict: 'kept' });
    await seen.end();
    expect(seen.stale).to.deep.equal([]);
    expect(await reader.warm()).to.equal(5);
    expect(await reader.outcome()).to.equal('hit');
  });

  describe('that loses its quarantine while COMMIT runs', () => {
    it('is degraded, and bumps, when the quarantine lapses without renewals', async () => {
      const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
      await open({ redis: redis.url, limits: { quarantineMs: 600 }, bumpDeadlineMs: 5_000 });
      const { goOn } = await hang(writer.change(5));
      redis.hold();
      await fillAnew();
      redis.release();
      expect(await goOn()).to.include({ bump: 'done', strict: 'degraded' });
      expect(await reader.warm()).to.equal(5);
    });

    it('is degraded, and bumps, when the quarantine is evicted', async () => {
      const { goOn } = await hang(writer.change(5));
      await lendRedis().del(keyOf(writer));
      await fillAnew();
      expect(await goOn()).to.include({ bump: 'done', strict: 'degraded' });
      expect(await reader.outcome()).to.equal('miss');
      expect(await reader.warm()).to.equal(5);
    });

    it('is degraded, and bumps, when Redis restarts empty', async () => {
      const server = await privateRedis();
      await open({ redis: server.url }, { redis: server.url });
      const { goOn } = await hang(writer.change(5));
      await server.restart();
      await fillAnew();
      expect(await goOn()).to.include({ bump: 'done', strict: 'degraded' });
      expect(await reader.warm()).to.equal(5);
    });
  });

  it('rejects, and commits nothing, when the quarantine can’t be set', async () => {
    const server = await privateRedis();
    await open({ redis: server.url, bumpDeadlineMs: 100 }, { redis: server.url });
    const error = await rejection(
      writer.cache.transaction(
        async (trx) => {
          await writer.change(5)(trx);
          server.pause();
        },
        { strict: true },
      ),
    );
    server.resume();
    expect(error).to.be.instanceOf(QuarantineError);
    expect(error).to.have.property('code', 'QUARANTINE');
    expect(error.message).to.equal(
      'The quarantine before a strict commit failed: A quarantine must be answered by the store within 100 ms, and was ' +
        'not. Look at the load of the store and of this event loop, or raise the deadline. The transaction was rolled ' +
        'back; nothing was committed. Try again, or commit without `strict`.',
    );
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
    // What the paused server got, it carries out: the quarantine, and the lift.
    await eventually(async () => expect(await reader.outcome()).to.equal('miss'));
    await eventually(async () =>
      expect(await writer.set(6, { strict: true })).to.include({ bump: 'done', strict: 'kept' }),
    );
  });

  it('waits before BEGIN while the connection is known to be lost, and then rejects without a further wait', async () => {
    const server = await privateRedis();
    await open({ redis: server.url, bumpDeadlineMs: 2_000 }, { redis: server.url });
    await server.kill('SIGKILL');
    await eventually(() => expect(writer.cache.state.connection?.isUp).to.equal(false));
    const times: number[] = [performance.now()];
    const work = writer.change(5);
    const committing = writer.cache.transaction(
      async (trx) => {
        times.push(performance.now());
        await work(trx);
        times.push(performance.now());
      },
      { strict: true },
    );
    const error = await rejection(committing);
    times.push(performance.now());
    expect(error).to.be.instanceOf(QuarantineError);
    const [calledAtMs, begunAtMs, workedAtMs, rejectedAtMs] = times as [number, number, number, number];
    expect(begunAtMs - calledAtMs).to.be.within(1_900, 10_000);
    expect(rejectedAtMs - workedAtMs).to.be.below(1_900);
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
  });

  it('commits on a dead Redis if it records nothing, and if Redis is back before BEGIN', async () => {
    const server = await privateRedis();
    await open({ redis: server.url, bumpDeadlineMs: 200 }, { redis: server.url });
    await server.kill('SIGKILL');
    await eventually(() => expect(writer.cache.state.connection?.isUp).to.equal(false));
    expect(await writer.cache.transaction(async () => 'nothing', { strict: true })).to.include({ value: 'nothing' });
    await server.restart();
    await eventually(async () => expect(await writer.set(6, { strict: true })).to.include({ strict: 'kept' }));
  });

  it('rejects after one wait when the quarantine could not be sent: there is nothing to lift', async () => {
    const server = await privateRedis();
    await open({ redis: server.url, bumpDeadlineMs: 2_000 }, { redis: server.url });
    let endedAtMs = 0;
    const committing = writer.cache.transaction(
      async (trx) => {
        await writer.change(5)(trx);
        await server.kill('SIGKILL');
        await eventually(() => expect(writer.cache.state.connection?.isUp).to.equal(false));
        endedAtMs = performance.now();
      },
      { strict: true },
    );
    expect(await rejection(committing)).to.be.instanceOf(QuarantineError);
    expect(performance.now() - endedAtMs).to.be.within(1_900, 3_800);
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
    await server.restart();
    await eventually(async () =>
      expect(await writer.set(6, { strict: true })).to.include({ bump: 'done', strict: 'kept' }),
    );
  });

  it('is pending and degraded when the lift fails; a relay bumps', async () => {
    const server = await privateRedis();
    await open({ redis: server.url, limits: { quarantineMs: 2_000 }, bumpDeadlineMs: 500 }, { redis: server.url });
    const { goOn } = await hang(writer.change(5));
    server.pause();
    const { error, ...result } = await goOn();
    expect(result).to.deep.equal({ value: undefined, bump: 'pending', strict: 'degraded' });
    expect(error).to.have.property('code', 'DEADLINE');
    expect(await recorded(db)).to.deep.equal(['item=1']);
    expect(await reader.warm()).to.equal(5); // from the source
    server.resume();
    lendRelay({ db, cache: writer.name, url: server.url });
    await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    await eventually(async () => expect(await reader.outcome()).to.equal('miss'));
    expect(await reader.warm()).to.equal(5);
  });

  it('commits nothing when PostgreSQL ends its session after a long silence before COMMIT', async () => {
    const { db: own, proxy } = await lendProxied('public', postgres.url);
    const proxied = openShop(own, { name: writer.name, limits: { quarantineMs: 800 } });
    const committing = deferred();
    beforeQuery(own, 'COMMIT', () => {
      proxy.hold();
      committing.resolve();
    });
    const writing = rejection(proxied.set(5, { strict: true }));
    await committing.promise;
    expect(await sessionsInTransaction(db)).to.equal(1);
    await eventually(async () => expect(await sessionsInTransaction(db)).to.equal(0));
    expect(await reader.outcome()).to.equal('quarantine');
    proxy.release(); // COMMIT arrives now
    expect(await writing)
      .to.have.property('message')
      .that.matches(/idle-in-transaction timeout|terminated|ECONNRESET/);
    expect(await price()).to.equal(0);
    expect(await recorded(db)).to.deep.equal([]);
    expect(await reader.outcome()).to.equal('miss');
  });

  it('covers scopes that deferred triggers add', async () => {
    await db.raw(
      `create function record_item() returns trigger language plpgsql as $$ begin
         insert into gencache_outbox (cache, path, source, operation)
           values ('${writer.name}', 'item=' || new.id, 'item', tg_op);
         return null;
       end $$;
       create constraint trigger record_item after update on item deferrable initially deferred
         for each row execute function record_item()`,
    );
    try {
      const { goOn } = await hang(async (trx) => {
        await trx('item').where({ id: 1 }).update({ price: 5 });
        expect(await recorded(trx)).to.deep.equal([]);
      });
      expect(await reader.outcome()).to.equal('quarantine');
      expect(await goOn()).to.include({ bump: 'done', strict: 'kept' });
      expect(await reader.warm()).to.equal(5);
    } finally {
      await db.raw('drop function record_item cascade');
    }
  });

  describe('whose lookup finds more scopes after COMMIT', () => {
    beforeEach(() =>
      db.raw(
        `create table link (of_item int);
         insert into link values (1);
         create function gencache_lookup_links(args jsonb) returns setof text language sql stable as
           $$ select 'item=' || of_item from link $$`,
      ),
    );

    afterEach(() => db.raw('drop function gencache_lookup_links; drop table link'));

    const relink = (trx: Knex.Transaction) =>
      trx.raw(
        `insert into gencache_outbox (cache, path, lookup, args, source, operation)
         values (?, '', 'gencache_lookup_links', '[]', 'tag', 'UPDATE')`,
        [writer.name],
      );
    /** Another transaction, which sees nothing of the one that commits. */
    const linkMore = () => db.raw('insert into link values (2)');

    it('is degraded, and bumps the further scopes', async () => {
      const seen = observe(writer.cache);
      const { goOn } = await hang(relink);
      expect(await reader.outcome(1)).to.equal('quarantine');
      expect(await reader.outcome(2)).to.equal('hit');
      await linkMore();
      expect(await goOn()).to.include({ bump: 'done', strict: 'degraded' });
      expect(await reader.outcome(1)).to.equal('miss');
      expect(await reader.outcome(2)).to.equal('miss');
      expect(seen.events('bump')[0]).to.include({ bumps: 2, cause: 'tag UPDATE' });
      expect(await recorded(db)).to.deep.equal([]);
    });

    it('is degraded when a relay has bumped the further scopes first', async () => {
      const relay = lendRelay({ db, cache: writer.name });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      const { db: own, proxy } = await lendProxied('public', postgres.url);
      writer = openShop(own, { name: writer.name });
      const { pid, committed } = await hang(relink);
      await linkMore();
      proxy.holdReplies();
      await postgres.release(db, pid);
      await eventually(() => expect(relay.status.events).to.equal(1));
      proxy.releaseReplies();
      expect(await committed).to.include({ bump: 'done', strict: 'degraded' });
    });

    it('is kept when the lookup finds the same scopes as before COMMIT', async () => {
      const { goOn } = await hang(relink);
      expect(await goOn()).to.include({ bump: 'done', strict: 'kept' });
    });
  });

  for (const [policy, matches] of [
    ['volatile-ttl', true],
    ['allkeys-lru', true],
    ['noeviction', false],
  ] as const) {
    it(`emits ${matches ? 'a' : 'no'} warning about eviction at start-up on a Redis with ${policy}`, async () => {
      const server = await privateRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', policy] });
      const shop = openShop(db, { redis: server.url });
      const { promise, resolve } = deferred<string>();
      shop.cache.on('warning', ({ message }) => resolve(message));
      await shop.warm();
      expect((await promise).endsWith('Strict commits need noeviction.')).to.equal(matches);
    });
  }
});

/** The generation of item 1. */
function keyOf({ name }: Shop): string {
  return generationKey(keyPrefix(name), 'item=1');
}

async function sessionsInTransaction(db: Knex): Promise<number> {
  const { rows } = await db.raw<{ rows: { count: string }[] }>(
    `select count(*) from pg_stat_activity where state = 'idle in transaction'`,
  );
  return Number(rows[0]!.count);
}
