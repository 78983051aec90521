import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import { lend } from '../support/lenders.js';

describe('statistics of entries that share a namespace, or a name', () => {
  it('are those of each', async () => {
    const cache = new GenerationalCache({ name: 'shop', store: memoryStore() });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const users = cache.namespace('user', integer());
    const prices = items.value('price', { load: () => 1 });
    const names = items.value('name', { load: () => 2 });
    const others = users.value('name', { load: () => 3 });
    await Promise.all([prices.fetch({ item: 1 }), names.fetch({ item: 1 }), others.fetch({ user: 1 })]);
    await cache.settled();
    await prices.fetch({ item: 1 });
    for (let i = 0; i < 2; i++) await names.fetch({ item: 1 });
    for (let i = 0; i < 3; i++) await others.fetch({ user: 1 });
    const hits = (labels: Record<string, string>) => cache.statistics.total('hits', labels);
    expect(hits({ namespace: 'item', entry: 'price' })).to.equal(1);
    expect(hits({ namespace: 'item', entry: 'name' })).to.equal(2);
    expect(hits({ namespace: 'user', entry: 'name' })).to.equal(3);
  });
});

/** More label sets than a cache keeps. */
const TENANTS = 2_500;

describe('statistics of more label sets than a cache keeps', () => {
  function lendShop() {
    const cache = new GenerationalCache({ name: 'shop', store: memoryStore(), loadBatchMax: 10_000 });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const declare = (name: string) =>
      items.one(name, {
        // A function has no stored form.
        load: async (ids) => ids.map(({ item }) => ({ item, value: Number(item) < 0 ? () => {} : 'value' })),
        by: ({ item }) => ({ item }),
        value: ({ value }) => value,
      });
    type Entry = ReturnType<typeof declare>;
    /** One call for each tenant. */
    const fetchAs = (entry: Entry, item: number) =>
      Promise.all(Array.from({ length: TENANTS }, (_, tenant) => entry.fetch({ item }, { attributes: { tenant } })));
    return { cache, items, orders: declare('orders'), overflow: declare('overflow'), fetchAs };
  }

  it('keep the entry, and put { overflow: true } in place of the attributes', async () => {
    const { cache, orders, fetchAs } = lendShop();
    await orders.fetch({ item: 1 });
    await cache.settled();
    await fetchAs(orders, 1);
    const series = cache.statistics.series().filter(({ counter }) => counter === 'hits');
    const kept = series.filter(({ labels }) => labels['tenant'] !== undefined);
    const rest = series.filter(({ labels }) => labels['tenant'] === undefined);
    expect(kept.length).to.be.within(900, 2_000);
    expect(rest).to.deep.equal([
      {
        counter: 'hits',
        labels: { overflow: true, cache: 'shop', namespace: 'item', entry: 'orders' },
        value: TENANTS - kept.length,
      },
    ]);
    expect(cache.statistics.total('hits', { entry: 'orders' })).to.equal(TENANTS);
    expect(cache.statistics.series().length).to.be.below(2_020);
  });

  it('keep the reason beside the entry', async () => {
    const { cache, orders } = lendShop();
    for (let tenant = 0; tenant < TENANTS; tenant++) {
      await orders.fetch({ item: -1 }, { attributes: { tenant } });
    }
    await cache.settled();
    const refused = { entry: 'orders', reason: 'unencodable' };
    expect(cache.statistics.total('refused_fills', refused)).to.equal(TENANTS);
    expect(cache.statistics.total('refused_fills', { ...refused, overflow: true })).to.be.above(0);
  });

  it('keep the namespace of bumps, whose causes overflow as attributes do', async () => {
    const { cache, items } = lendShop();
    for (let i = 0; i < TENANTS; i++) await items.bump({ item: 1 }, { cause: `migration ${i}` });
    await cache.bump({ cause: 'one more' });
    expect(cache.statistics.total('bumps', { namespace: 'item' })).to.equal(TENANTS);
    expect(cache.statistics.total('bumps', { namespace: 'item', overflow: true })).to.equal(TENANTS - 2_000);
    expect(cache.statistics.total('bumps', { namespace: 'global', overflow: true })).to.equal(1);
  });

  it('count calls without attributes as before', async () => {
    const { cache, orders, overflow, fetchAs } = lendShop();
    await fetchAs(orders, 1);
    await overflow.fetch({ item: 7 });
    await cache.settled();
    await overflow.fetch({ item: 7 });
    const labels = { cache: 'shop', namespace: 'item', entry: 'overflow' };
    const of = cache.statistics.series().filter((series) => series.labels['entry'] === 'overflow');
    expect(of.find(({ counter }) => counter === 'misses')).to.deep.equal({
      ...{ counter: 'misses', value: 1 },
      labels: { ...labels, cause: 'no_generation' },
    });
    expect(of.find(({ counter }) => counter === 'hits')).to.deep.equal({ counter: 'hits', labels, value: 1 });
  });

  it('distinguish an entry named overflow from the overflow', async () => {
    const { cache, orders, overflow, fetchAs } = lendShop();
    await overflow.fetch({ item: 1 });
    await orders.fetch({ item: 1 });
    await cache.settled();
    await overflow.fetch({ item: 1 });
    await fetchAs(orders, 1);
    await fetchAs(overflow, 1);
    await overflow.fetch({ item: 1 });
    const plain = cache.statistics
      .series()
      .filter(({ counter, labels }) => counter === 'hits' && !('overflow' in labels) && !('tenant' in labels));
    expect(plain).to.deep.equal([
      { counter: 'hits', labels: { cache: 'shop', namespace: 'item', entry: 'overflow' }, value: 2 },
    ]);
    expect(cache.statistics.total('hits', { entry: 'overflow' })).to.equal(TENANTS + 2);
    expect(cache.statistics.total('hits', { entry: 'orders' })).to.equal(TENANTS);
  });
});
