/** A strict commit of more scopes than one command takes, whose renewals get through in part. */
import { expect } from 'chai';
import { GenerationalCache, integer, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { KnexOutbox } from '../../lib/knex/knex-outbox.js';
import { StoreUnavailableError } from '../../lib/ports/store.js';
import { deferred, eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendProxied } from '../support/knexes.js';
import { schemaOf } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { before as beforeQuery } from '../support/queries.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';
import { lendOutbox } from '../support/relay.js';
import { createItems } from '../support/shop.js';

/** The same store; tells when the nth quarantine is about to be sent, and of what, waits, and tells how that one ended. */
function watchQuarantines(
  store: Store,
  about: (n: number, keys: readonly string[]) => Promise<void>,
  ended: (n: number, error?: unknown) => void,
) {
  let calls = 0;
  const quarantine = async (...args: Parameters<Store['quarantine']>) => {
    const n = ++calls;
    await about(n, args[0]);
    try {
      const held = await store.quarantine(...args);
      ended(n);
      return held;
    } catch (error) {
      ended(n, error);
      throw error;
    }
  };
  return new Proxy(store, {
    get(target, name) {
      if (name === 'quarantine') return quarantine;
      // With the store itself as `this`: it has private fields.
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

describe('a strict commit of more than 1,000 scopes', () => {
  it('is degraded when a renewal put back an evicted token, even if the next command of the renewal failed', async () => {
    const db = await lendOutbox();
    await createItems(db);
    const { db: own, proxy } = await lendProxied(schemaOf(db));
    const redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
    const name = uniqueName();
    const evicted = deferred();
    const renewed = deferred<unknown>();
    const store = redisStore(lendRedis({ url: redis.url, lazyConnect: true }));
    let first: readonly string[] = [];
    // Two commands place the tokens, the next two renew them.
    const watched = watchQuarantines(
      store,
      async (n, keys) => {
        if (n === 1) first = keys;
        if (n === 3) await evicted.promise;
        if (n !== 4) return;
        redis.refuse();
        redis.cut();
        await eventually(() => expect(store.incarnation).to.equal(undefined));
      },
      (n, error) => n === 4 && renewed.resolve(error),
    );
    const cache = new GenerationalCache({
      ...{ name, store: watched, closeDeadlineMs: 3_000 },
      source: { context: (trx) => ({ db: trx ?? own }), outbox: new KnexOutbox(own, {}, { quarantineMs: 4_000 }) },
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const ids = Array.from({ length: 1_500 }, (_, item) => ({ item: item + 1 }));

    beforeQuery(own, 'COMMIT', () => proxy.holdReplies());
    const committing = cache.transaction(
      async (trx) => {
        await trx('item').where({ id: 1 }).update({ price: 5 });
        await items.bumpMany(ids, { trx });
      },
      { strict: true },
    );
    committing.catch(() => {});
    await eventually(async () => expect(await db('item').pluck<number[]>('price')).to.deep.equal([5]));
    expect(await lendRedis().del(first[0]!)).to.equal(1);
    evicted.resolve();
    expect(await renewed.promise)
      .to.be.instanceOf(StoreUnavailableError)
      .with.property('sent', false);
    await redis.accept();
    proxy.releaseReplies();
    expect(await committing).to.deep.equal({ value: undefined, bump: 'done', strict: 'degraded' });
  });
});
