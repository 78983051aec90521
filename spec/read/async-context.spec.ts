import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StandardSchemaV1 } from '@standard-schema/spec';
import { expect } from 'chai';
import { type CacheEvents, GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedis, uniqueName } from '../support/redis.js';

describe('the async context of a caller', () => {
  const tenant = new AsyncLocalStorage<string>();

  /** A cache whose functions note the context they run in: `<function> of <tenant>`. */
  function lendNoting(options: { readonly verifyRate?: number; readonly loadsMax?: number } = {}) {
    const noted: string[] = [];
    const note = (what: string) => void noted.push(`${what} of ${tenant.getStore()}`);
    const source = { context: (trx?: string) => ({ trx }) };
    const cache = new GenerationalCache({
      name: uniqueName(),
      store: memoryStore(),
      source,
      verifyDelayMs: 0,
      ...options,
    });
    lend({ what: 'the cache', close: () => cache.close() });
    const others = cache.namespace('other', integer());
    const schema: StandardSchemaV1<string> = {
      '~standard': { version: 1, vendor: 'spec', validate: (value) => (note('schema'), { value: value as string }) },
    };
    const price = cache.namespace('item', integer()).one('price', {
      async load(ids) {
        note('load');
        await sleep(1);
        note('load after an await');
        return ids.map(({ item }) => ({ item, price: `price of ${item}` }));
      },
      by: (row) => (note('by'), { item: row.item }),
      value: (row) => (note('value'), row.price),
      dependsOn: ({ item }) => (note('dependsOn'), [others.scope({ other: item })]),
      schema,
    });
    for (const name of ['read', 'load', 'fill', 'verify', 'staleEntry'] as (keyof CacheEvents)[]) {
      cache.on(name, () => note(`event ${name}`));
    }
    /** Fetches as a request of this tenant, and notes the context in which the request goes on. */
    const fetchAs = (who: string, item: number, trx?: string) =>
      tenant.run(who, async () => {
        const value = await price.fetch({ item }, trx === undefined ? {} : { trx });
        return `${value} for ${tenant.getStore()}`;
      });
    return { cache, noted, fetchAs };
  }

  it('reaches no function of an entry and no listener, while each caller goes on in its own', async () => {
    const { cache, noted, fetchAs } = lendNoting();
    const fetched = await Promise.all([fetchAs('acme', 1), fetchAs('globex', 2)]);
    await cache.settled();
    expect(fetched).to.deep.equal(['price of 1 for acme', 'price of 2 for globex']);
    expect([...new Set(noted)].sort()).to.deep.equal(
      [
        ...['load', 'load after an await', 'by', 'value', 'dependsOn', 'schema'],
        ...['event read', 'event load', 'event fill'],
      ]
        .map((what) => `${what} of undefined`)
        .sort(),
    );
  });

  it('reaches no load that waited for the room of another caller’s', async () => {
    const { cache, noted, fetchAs } = lendNoting({ loadsMax: 1 });
    const fetched: Promise<string>[] = [];
    for (const item of [1, 2, 3]) {
      fetched.push(fetchAs(`tenant ${item}`, item));
      await new Promise(setImmediate);
    }
    await Promise.all(fetched);
    await cache.settled();
    expect(noted.filter((line) => line.startsWith('load of')).length).to.be.at.least(2);
    expect(noted.filter((line) => !line.endsWith(' of undefined'))).to.deep.equal([]);
  });

  it('is the same after a hit, and after a call that joined a load', async () => {
    const { noted, fetchAs } = lendNoting();
    const first = fetchAs('acme', 1);
    await new Promise(setImmediate);
    const joined = fetchAs('globex', 1);
    expect(await Promise.all([first, joined])).to.deep.equal(['price of 1 for acme', 'price of 1 for globex']);
    expect(await fetchAs('initech', 1)).to.equal('price of 1 for initech');
    expect(noted.filter((one) => !one.endsWith(' of undefined'))).to.deep.equal([]);
  });

  it('does not reach the loads of verifyRate', async () => {
    const { cache, noted, fetchAs } = lendNoting({ verifyRate: 1 });
    await fetchAs('acme', 1);
    await cache.settled();
    noted.length = 0;
    await fetchAs('acme', 1);
    await cache.settled();
    expect(noted).to.include.members(['load of undefined', 'event verify of undefined']);
    expect(noted.filter((one) => !one.endsWith(' of undefined'))).to.deep.equal([]);
  });

  it('reaches a load on its own transaction, which is never shared nor stored', async () => {
    const { noted, fetchAs } = lendNoting();
    expect(await fetchAs('acme', 1, 'a transaction')).to.equal('price of 1 for acme');
    expect(noted).to.include.members(['load of acme', 'event read of acme']);
  });

  it('does not reach the listeners of the connection that a cache opens in it, nor those of a passed deadline', async () => {
    const server = await privateRedis();
    const noted: string[] = [];
    const { cache, value } = tenant.run('acme', () => lendCache({ url: server.url, readDeadlineMs: 50 }));
    cache.on('storeUp', () => noted.push(`up of ${tenant.getStore()}`));
    cache.on('storeFailure', ({ operation }) => noted.push(`${operation} of ${tenant.getStore()}`));
    await eventually(() => expect(noted).to.include('up of undefined'));
    server.pause();
    await tenant.run('globex', () => value.fetch({ item: 1 }));
    // A connection that stays silent for two seconds is left.
    await eventually(async () => {
      await tenant.run('initech', () => value.fetch({ item: 1 }));
      expect(noted).to.include('connection of undefined');
    });
    server.resume();
    await eventually(() => expect(noted.filter((one) => one.startsWith('up'))).to.have.length(2));
    expect(noted.filter((one) => !one.endsWith(' of undefined'))).to.deep.equal([]);
  });
});
