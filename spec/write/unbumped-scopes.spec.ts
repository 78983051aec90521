import { expect } from 'chai';
import {
  type BumpEvent,
  GenerationalCache,
  integer,
  memoryStore,
  type Store,
  StoreUnavailableError,
} from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { installOutbox } from '../../lib/knex/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { type Deferred, deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendDatabase } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

describe('a bump that failed', () => {
  /** A cache of shops and their items, warm, whose store refuses or holds bumps as the spec says. */
  async function lendFailing({ breakerRetryMs = 3_600_000 }: { breakerRetryMs?: number } = {}) {
    const memory = memoryStore();
    const bumps = { fail: false, held: undefined as Deferred<void> | undefined, commands: 0 };
    const store: Store = {
      ...memory,
      async bump(...args) {
        bumps.commands++;
        const reply = memory.bump(...args);
        if (bumps.held) await bumps.held.promise;
        if (bumps.fail) throw new StoreUnavailableError('refused by the spec', true);
        return reply;
      },
    };
    const cache = new GenerationalCache({ name: uniqueName(), store, breakerRetryMs });
    lend({ what: 'the cache', close: () => cache.close() });
    const events: BumpEvent[] = [];
    cache.on('bump', (event) => events.push(event));
    const shops = cache.namespace('shop', integer());
    const items = shops.namespace('item', integer());
    const value = items.one('value', {
      load: async (ids) => ids.map((id) => ({ ...id, value: 'new' })),
      by: ({ shop, item }) => ({ shop, item }),
      value: (row) => row.value,
    });
    const ids = [1, 2].flatMap((shop) => [1, 2].map((item) => ({ shop, item })));
    await value.fetchMany(ids);
    await cache.settled();
    /** The outcome for each item: 1 of shop 1, 2 of shop 1, 1 of shop 2, 2 of shop 2. */
    const outcomes = async () =>
      Promise.all(
        ids.map(async (id) => {
          const looked = await value.lookup(id);
          return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
        }),
      );
    expect(await outcomes()).to.deep.equal(['hit', 'hit', 'hit', 'hit']);
    return { cache, shops, items, value, bumps, events, outcomes };
  }

  it('keeps this process from what its change made old, and from nothing else', async () => {
    const { cache, items, value, bumps, outcomes } = await lendFailing();
    bumps.fail = true;
    expect(await rejection(items.bump({ shop: 1, item: 1 }))).to.have.property('code', 'BUMP');
    expect(await outcomes()).to.deep.equal(['unbumped', 'hit', 'hit', 'hit']);
    expect(
      await value.fetchMany([
        { shop: 1, item: 1 },
        { shop: 1, item: 2 },
      ]),
    ).to.deep.equal(['new', 'new']);
    expect(cache.statistics.total('bypasses', { reason: 'unbumped' })).to.equal(2);
    expect(cache.state.unbumped).to.equal(1);
  });

  it('of a scope holds for all below it, and of the cache for everything', async () => {
    const { cache, shops, bumps, outcomes } = await lendFailing();
    bumps.fail = true;
    await rejection(shops.bump({ shop: 1 }));
    expect(await outcomes()).to.deep.equal(['unbumped', 'unbumped', 'hit', 'hit']);
    await rejection(cache.bump());
    expect(await outcomes()).to.deep.equal(['unbumped', 'unbumped', 'unbumped', 'unbumped']);
  });

  it('is tried again until it succeeds', async () => {
    const { cache, items, bumps, events, outcomes } = await lendFailing({ breakerRetryMs: 10 });
    bumps.fail = true;
    await rejection(
      items.bumpMany([
        { shop: 1, item: 1 },
        { shop: 2, item: 2 },
      ]),
    );
    await eventually(() => expect(bumps.commands).to.be.above(3));
    expect(await outcomes()).to.deep.equal(['unbumped', 'hit', 'hit', 'unbumped']);
    bumps.fail = false;
    await eventually(() => expect(cache.state.unbumped).to.equal(0));
    expect(await outcomes()).to.deep.equal(['miss', 'hit', 'hit', 'miss']);
    const { commands } = bumps;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(bumps.commands).to.equal(commands); // and then no more
    expect(events.at(-1)).to.deep.include({
      ...{ origin: 'retry', cause: 'retry', namespace: 'shop/item', bumps: 2, error: undefined },
      paths: ['shop=1/item=1', 'shop=2/item=2'],
    });
    expect(events.at(-2)).to.have.property('origin', 'retry');
    expect(events.at(-2)!.error).to.have.property('code', 'BUMP');
  });

  it('is made good by a later bump of its scope, or of one above', async () => {
    for (const above of [false, true]) {
      const { shops, items, bumps, outcomes } = await lendFailing();
      bumps.fail = true;
      await rejection(
        items.bumpMany([
          { shop: 1, item: 1 },
          { shop: 2, item: 1 },
        ]),
      );
      bumps.fail = false;
      await (above ? shops.bump({ shop: 1 }) : items.bump({ shop: 1, item: 1 }));
      expect((await outcomes())[0]).to.not.equal('unbumped');
      expect((await outcomes())[2]).to.equal('unbumped');
    }
  });

  it('is not made good by a bump that began before it, and ended after it', async () => {
    const { items, bumps, outcomes } = await lendFailing();
    const held = (bumps.held = deferred());
    const earlier = items.bump({ shop: 1, item: 1 }); // carried out before the change, for all that is known
    bumps.held = undefined;
    bumps.fail = true;
    await rejection(items.bump({ shop: 1, item: 1 }));
    bumps.fail = false;
    held.resolve();
    await earlier;
    expect((await outcomes())[0]).to.equal('unbumped');
  });

  it('of more scopes than are noted one by one makes the whole cache one', async () => {
    const { cache, items, bumps, outcomes } = await lendFailing({ breakerRetryMs: 50 });
    bumps.fail = true;
    await rejection(items.bumpMany(Array.from({ length: 10_001 }, (_, item) => ({ shop: 9, item }))));
    expect(cache.state.unbumped).to.equal(1);
    expect(await outcomes()).to.deep.equal(['unbumped', 'unbumped', 'unbumped', 'unbumped']);
    bumps.fail = false;
    await eventually(() => expect(cache.state.unbumped).to.equal(0));
    expect(await outcomes()).to.deep.equal(['miss', 'miss', 'miss', 'miss']);
  });

  it('of a transaction, made while Redis was away, is made good as soon as Redis is back, without a relay', async () => {
    const db = await lendDatabase();
    await installOutbox(db);
    await db.schema.createTable('item', (table) => {
      table.integer('id');
      table.integer('version');
    });
    await db('item').insert({ id: 1, version: 1 });
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    const cache = new GenerationalCache({
      ...{ name: uniqueName(), store: redisStore(lendRedis({ url: proxy.url })), source: knexSource(db) },
      ...{ readDeadlineMs: READ_DEADLINE_MS, bumpDeadlineMs: 100, breakerRetryMs: 3_600_000 },
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const version = items.one('version', {
      load: (ids, context) =>
        context.db<{ id: number; version: number }>('item').whereIn(
          'id',
          ids.map(({ item }) => Number(item)),
        ),
      by: ({ id }) => ({ item: id }),
      value: (row) => row.version,
    });
    expect(await version.fetch({ item: 1 })).to.equal(1);
    await cache.settled();
    proxy.refuse();
    proxy.cut();
    const { bump } = await cache.transaction(async (trx) => {
      await trx('item').update({ version: 2 });
      await items.bump({ item: 1 }, { trx });
    });
    expect(bump).to.equal('pending');
    expect(cache.state.unbumped).to.equal(1);
    await proxy.accept();
    const read = new Set<number | undefined>();
    await eventually(async () => {
      read.add(await version.fetch({ item: 1 }));
      expect(cache.state.unbumped).to.equal(0);
    });
    expect([...read]).to.deep.equal([2]); // never 1
    expect((await version.lookup({ item: 1 })).outcome).to.be.oneOf(['miss', 'hit']);
    expect(await version.fetch({ item: 1 })).to.equal(2);
  });
});
