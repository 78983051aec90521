import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import {
  COUNTERS,
  type Counter,
  type FillEvent,
  GenerationalCache,
  integer,
  memoryStore,
  type ReadEvent,
} from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { AskedStore } from '../ports/asked-store.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendDatabase } from '../support/postgres.js';

describe('telemetry', () => {
  /** The counters that are not zero. */
  function counted(cache: ReturnType<typeof lendCache>['cache']): Partial<Record<Counter, number>> {
    const names = (Object.keys(COUNTERS) as Counter[]).filter((name) => name !== 'load_duration_ms');
    return Object.fromEntries(names.map((name) => [name, cache.statistics.total(name)]).filter(([, n]) => n !== 0));
  }

  it('counts misses, fills, hits, absent hits, queries run and avoided, each once', async () => {
    const { cache, value, rows } = lendCache();
    rows.set(1, 'one');
    await value.fetchMany([{ item: 1 }, { item: 2 }, { item: 1 }]);
    await cache.settled();
    expect(counted(cache)).to.deep.equal({ misses: 2, queries_run: 1, fills: 2 });
    await value.fetchMany([{ item: 1 }, { item: 2 }, { item: 1 }]);
    expect(counted(cache)).to.deep.equal({
      hits: 1,
      absent_hits: 1,
      misses: 2,
      queries_run: 1,
      queries_avoided: 1,
      fills: 2,
    });
    expect(cache.statistics.total('load_duration_ms')).to.be.greaterThan(0);
  });

  it('counts a query avoided for a call that joined another’s load', async () => {
    const { cache, value, rows } = lendCache();
    rows.set(1, 'one');
    await Promise.all([value.fetch({ item: 1 }), value.fetch({ item: 1 }), value.fetch({ item: 1 })]);
    await cache.settled();
    expect(counted(cache)).to.deep.equal({ misses: 3, queries_run: 1, queries_avoided: 2, fills: 1 });
  });

  it('counts bumps by namespace and cause, and refused fills by reason', async () => {
    const { cache, value, rows, items, hold, loads } = lendCache();
    rows.set(1, 'one');
    const release = hold();
    const read = value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(1));
    await items.bumpMany([{ item: 1 }, { item: 2 }, { item: 1 }]);
    await cache.bump({ cause: 'deploy' });
    release();
    expect(await read).to.equal('one');
    await cache.settled();
    expect(counted(cache)).to.deep.equal({ misses: 1, queries_run: 1, refused_fills: 1, bumps: 3 });
    expect(cache.statistics.total('bumps', { namespace: 'item', cause: 'call' })).to.equal(2);
    expect(cache.statistics.total('bumps', { namespace: 'global', cause: 'deploy' })).to.equal(1);
    expect(cache.statistics.total('refused_fills', { reason: 'moved', entry: 'value' })).to.equal(1);
  });

  it('counts the bypasses of one call by the reason of each', async () => {
    const store = memoryStore();
    const { cache, name, value, rows } = lendCache({ store });
    const asked = new AskedStore(store, name);
    const keyOf = (item: number) => generationKey(keyPrefix(name), `item=${item}`);
    await asked.quarantine([keyOf(1), keyOf(2)]);
    await asked.plant(keyOf(3), 'of another program');
    for (const item of [1, 2, 3, 4]) rows.set(item, `value ${item}`);
    const reads: ReadEvent[] = [];
    cache.on('read', (event) => reads.push(event));
    await value.fetchMany([1, 2, 3, 4].map((item) => ({ item })));
    expect(reads).to.have.length(1);
    expect(reads[0]).to.deep.include({
      misses: 1,
      bypasses: 3,
      bypassReasons: { quarantine: 2, foreign_generation: 1 },
    });
    expect(cache.statistics.total('bypasses', { reason: 'quarantine' })).to.equal(2);
    expect(cache.statistics.total('bypasses', { reason: 'foreign_generation' })).to.equal(1);
    expect(cache.statistics.total('bypasses')).to.equal(3);
  });

  it('counts the refused fills of one command by the reason of each', async () => {
    const replies = ['moved', 'filled', 'foreign', 'moved'] as const;
    const { cache, value, rows } = lendCache({
      store: { ...memoryStore(), fill: async () => ({ replies, timeMs: 0 }) },
    });
    for (const item of [1, 2, 3, 4]) rows.set(item, `value ${item}`);
    const fills: FillEvent[] = [];
    cache.on('fill', (event) => fills.push(event));
    await value.fetchMany([1, 2, 3, 4].map((item) => ({ item })));
    await cache.settled();
    expect(fills[0]).to.deep.include({ fills: 1, refused: 3, refusalReasons: { moved: 2, foreign: 1 } });
    expect(fills[0]!.error!.message).to.match(/^The key of an entry must hold a string/);
    expect(cache.statistics.total('refused_fills', { reason: 'moved' })).to.equal(2);
    expect(cache.statistics.total('refused_fills', { reason: 'foreign' })).to.equal(1);
  });

  it('tells two entries of one name in two namespaces apart, also in namespaces of one name', async () => {
    const cache = new GenerationalCache({ name: 'shop', store: memoryStore() });
    lend({ what: 'the cache', close: () => cache.close() });
    const options = { load: async () => [], by: () => ({}) as never };
    const customers = cache.namespace('customer', integer());
    const suppliers = cache.namespace('supplier', integer());
    const ofCustomer = customers.namespace('order', integer()).list('lines', options);
    const ofSupplier = suppliers.namespace('order', integer()).list('lines', options);
    const ofAll = cache.list('lines', options);
    await ofCustomer.fetch({ customer: 1, order: 1 });
    await ofSupplier.fetchMany([1, 2].map((order) => ({ supplier: 1, order })));
    await ofAll.fetch({});
    await cache.settled();
    const misses = (namespace: string) => cache.statistics.total('misses', { entry: 'lines', namespace });
    expect(['customer/order', 'supplier/order', 'global'].map(misses)).to.deep.equal([1, 2, 1]);
    const loads = cache.statistics.series().filter(({ counter }) => counter === 'queries_run');
    expect(loads.map(({ labels }) => labels['namespace'])).to.deep.equal([
      'customer/order',
      'supplier/order',
      'global',
    ]);
  });

  it('measures a call from its beginning to its answer', async () => {
    const { cache, value, rows, hold } = lendCache({ store: memoryStore() });
    rows.set(1, 'one');
    const durations: number[] = [];
    cache.on('read', ({ durationMs }) => durations.push(durationMs));
    const release = hold();
    const read = value.fetch({ item: 1 });
    await sleep(250);
    release();
    await read;
    await cache.settled();
    await value.fetch({ item: 1 });
    await value.lookup({ item: 1 });
    expect(durations[0]).to.be.within(245, 10_000);
    for (const durationMs of durations.slice(1)) expect(durationMs).to.be.within(0, 240);
    expect(durations).to.have.length(3);
  });

  it('labels the events of a call with the attributes of its caller', async () => {
    const { cache, name, value, rows } = lendCache();
    rows.set(1, 'one');
    await value.fetch({ item: 1 }, { attributes: { tenant: 'acme' } });
    await value.fetch({ item: 2 }, { attributes: { tenant: 'globex' } });
    await cache.settled();
    await value.fetch({ item: 1 }, { attributes: { tenant: 'acme' } });
    expect(cache.statistics.total('hits', { tenant: 'acme' })).to.equal(1);
    expect(cache.statistics.total('hits', { tenant: 'globex' })).to.equal(0);
    expect(cache.statistics.total('queries_run', { tenant: 'globex' })).to.equal(1);
    expect(cache.statistics.series().find(({ counter }) => counter === 'hits')).to.deep.equal({
      counter: 'hits',
      labels: { tenant: 'acme', cache: name, namespace: 'item', entry: 'value' },
      value: 1,
    });
  });

  it('leaves a load that serves calls with different attributes without attributes', async () => {
    const { cache, value } = lendCache();
    await Promise.all([
      value.fetch({ item: 1 }, { attributes: { tenant: 'acme' } }),
      value.fetch({ item: 2 }, { attributes: { tenant: 'globex' } }),
    ]);
    expect(cache.statistics.total('queries_run')).to.equal(1);
    expect(cache.statistics.total('queries_run', { tenant: 'acme' })).to.equal(0);
    expect(cache.statistics.total('misses', { tenant: 'acme' })).to.equal(1);
  });

  it('bounds the number of its label sets', async () => {
    const { cache, value, rows } = lendCache({ store: memoryStore() });
    rows.set(1, 'one');
    for (let tenant = 0; tenant < 2_100; tenant++) await value.fetch({ item: 1 }, { attributes: { tenant } });
    await cache.settled();
    expect(cache.statistics.series().length).to.be.at.most(2_020);
    expect(cache.statistics.total('hits') + cache.statistics.total('misses')).to.equal(2_100);
    expect(cache.statistics.total('queries_avoided', { overflow: true })).to.be.greaterThan(0);
  });

  it('keeps the error of a listener from callers', async () => {
    const { cache, value, rows } = lendCache();
    rows.set(1, 'one');
    const warnings: string[] = [];
    const onWarning = (warning: Error) => warnings.push(warning.message);
    process.on('warning', onWarning);
    cache.on('read', () => {
      throw new Error('my exporter');
    });
    expect(await value.fetch({ item: 1 })).to.equal('one');
    await eventually(() => expect(warnings).to.deep.equal(['A gencache listener of "read" threw: Error: my exporter']));
    process.off('warning', onWarning);
  });

  describe('the log of a value that is never stored', () => {
    it('says once for each entry and part of its value why, with the remedy, while the statistics count each', async () => {
      const db = await lendDatabase();
      const lines: string[] = [];
      const log = { debug() {}, info() {}, warn: (line: string) => lines.push(line), error() {} };
      const cache = new GenerationalCache({ name: 'shop', store: memoryStore(), source: knexSource(db), log });
      lend({ what: 'the cache', close: () => cache.close() });
      const items = cache.namespace('item', integer());
      const options = {
        load: async (ids: readonly { item: number | string }[]) => {
          const each = ids.map(({ item }) => item);
          const { rows } = await db.raw<{ rows: { item: number; wait: object }[] }>(
            "select item, interval '1 day 2 hours' as wait from unnest(?::int[]) as item",
            [each as never],
          );
          return rows;
        },
        by: ({ item }: { item: number }) => ({ item }),
      };
      const one = items.one('wait', options);
      const all = items.list('waits', options);
      for (const item of [1, 2, 3]) {
        await one.fetch({ item });
        await all.fetch({ item });
        await cache.settled();
      }
      expect(cache.statistics.total('refused_fills', { reason: 'unencodable' })).to.equal(6);
      const why = (path: string) =>
        `A cached value must come back from the store exactly as it was, but ${path} is an instance of PostgresInterval. ` +
        'Map the row in `value`, the interval by `toPostgres()`, or select the column as text. ' +
        'Further such values are counted by refused_fills alone.';
      expect(lines).to.deep.equal([
        `shop: 1 wait not stored: unencodable: ${why('value.wait')}`,
        `shop: 1 waits not stored: unencodable: ${why('value[0].wait')}`,
      ]);
    });
  });

  describe('the debug log', () => {
    function lendLogged(options: { logStacks?: boolean } = {}) {
      const lines: string[] = [];
      const log = { debug: (line: string) => lines.push(line), info() {}, warn() {}, error() {} };
      return { lines, ...lendCache({ ...options, log }) };
    }

    it('names the cause of each miss and bump', async () => {
      const { cache, name, lines, value, items, rows } = lendLogged();
      rows.set(1, 'one');
      await value.fetch({ item: 1 });
      await cache.settled();
      await value.fetch({ item: 1 });
      await value.delete({ item: 1 });
      await value.fetch({ item: 1 });
      await cache.settled();
      await items.bump({ item: 1 });
      await value.fetch({ item: 1 });
      await cache.settled();
      await items.bumpMany([{ item: 7 }]);
      await cache.bump({ cause: 'everything changed' });
      expect(lines).to.deep.equal([
        `${name}: miss of value at item=1: no_generation`,
        `${name}: miss of value at item=1: not_filled`,
        `${name}: bump of 1 item, 1 cached: call: item=1`,
        `${name}: miss of value at item=1: not_filled`,
        `${name}: bump of 1 item, 0 cached: call: item=7`,
        `${name}: bump of 1 global, 1 cached: everything changed: global`,
      ]);
    });

    it('names the scope that another process bumped', async () => {
      const { cache, name, lines, value, rows } = lendLogged();
      const other = lendCache({ name });
      rows.set(1, 'one');
      await value.fetch({ item: 1 });
      await cache.settled();
      lines.length = 0;
      await other.items.bump({ item: 1 });
      await value.fetch({ item: 1 });
      await cache.settled();
      await other.cache.bump();
      await value.fetch({ item: 1 });
      expect(lines).to.deep.equal([
        `${name}: miss of value at item=1: bumped by item=1`,
        `${name}: miss of value at item=1: bumped by global`,
      ]);
    });

    it('shows the caller’s stack on request', async () => {
      const { lines, value, items } = lendLogged({ logStacks: true });
      await value.fetch({ item: 1 });
      await items.bump({ item: 1 });
      expect(lines[0]).to.match(/^.*miss of value.*\n[^]*events\.spec\.ts/);
      expect(lines[1]).to.match(/^.*bump of 1 item.*\n[^]*events\.spec\.ts/);
    });
  });
});
