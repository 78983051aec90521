import { expect } from 'chai';
import type { BreakerEvent, Counter, Series } from '../../lib/index.js';
import { manualClock } from '../../lib/testing/index.js';
import { lendCache, watchReads } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

const RETRY_MS = 1_000;
/** Of reads that must succeed on a busy machine, where each failure before them takes as long. */
const LONG_DEADLINE_MS = 500;

describe('the breaker of reads', () => {
  /** A cache that has read its one entry, on a private server behind a proxy. Its breaker's clock stands still. */
  async function lendBroken(
    options: { breakerFailures?: number; readDeadlineMs?: number; rows?: Map<number, unknown> } = {},
  ) {
    const server = await privateRedis();
    const proxy = await startProxy(server.port);
    const clock = manualClock();
    const { rows = new Map([[1, 'one']]), ...rest } = options;
    const lent = lendCache({ url: proxy.url, clock, readDeadlineMs: 100, ttlMs: 3_600_000, rows, ...rest });
    const changes: BreakerEvent[] = [];
    lent.cache.on('breakerChanged', (event) => changes.push(event));
    const reads = watchReads(lent);
    // A busy machine may exceed the deadline; the last read is a hit, so no failure is counted.
    await eventually(async () => {
      clock.advance(RETRY_MS);
      await reads.fetch();
      expect(await reads.outcome()).to.equal('hit');
    });
    changes.length = 0;
    const before = lent.cache.statistics.series();
    /** What a counter has counted since. */
    const counted = (counter: Counter, labels: Series['labels'] = {}) => {
      const isMeant = (one: Series) =>
        one.counter === counter && Object.entries(labels).every(([name, value]) => one.labels[name] === value);
      const sum = (series: readonly Series[]) => series.filter(isMeant).reduce((total, { value }) => total + value, 0);
      return sum(lent.cache.statistics.series()) - sum(before);
    };
    /** Reads until the breaker is open: on a server that does not answer. */
    const open = async () => {
      server.pause();
      for (let i = 0; i < 3; i++) expect(await reads.outcome()).to.equal('store_failure');
    };
    return { ...lent, ...reads, server, proxy, clock, changes, open, counted };
  }

  it('opens after three failures in a row, and sends nothing then', async () => {
    const { cache, value, outcome, counted, open, changes, proxy } = await lendBroken();
    await open();
    const { requestBytes } = proxy;
    for (let i = 0; i < 10; i++) expect(await outcome()).to.equal('breaker_open');
    expect(await value.fetch({ item: 1 })).to.equal('one');
    expect(proxy.requestBytes).to.equal(requestBytes);
    expect(counted('bypasses', { reason: 'breaker_open' }) + counted('tracked_hits')).to.equal(11);
    expect(changes).to.have.length(1);
    expect(changes[0]).to.include({ cache: cache.name, operation: 'read', isOpen: true });
    expect(changes[0]!.error).to.have.property('code', 'DEADLINE');
    expect(counted('breaker_openings', { operation: 'read' })).to.equal(1);
    expect(counted('store_failures', { operation: 'read' })).to.equal(3);
  });

  it('stays closed if a read succeeds between failures', async () => {
    const { outcome, server, changes } = await lendBroken({ readDeadlineMs: LONG_DEADLINE_MS });
    for (let round = 0; round < 2; round++) {
      server.pause();
      for (let i = 0; i < 2; i++) expect(await outcome()).to.equal('store_failure');
      server.resume();
      await eventually(async () => expect(await outcome()).to.equal('hit'));
    }
    expect(changes).to.deep.equal([]);
  });

  it('admits one read in each interval, and no other read waits for it', async () => {
    const { outcome, open, clock } = await lendBroken();
    await open();
    clock.advance(RETRY_MS);
    for (let interval = 0; interval < 2; interval++) {
      const probe = outcome();
      expect(await outcome()).to.equal('breaker_open'); // before the probe's deadline
      expect(await probe).to.equal('store_failure');
      expect(await outcome()).to.equal('breaker_open');
      clock.advance(RETRY_MS);
    }
  });

  it('admits no read before half of the interval', async () => {
    const { outcome, open, clock } = await lendBroken();
    await open();
    clock.advance(RETRY_MS / 2 - 1);
    expect(await outcome()).to.equal('breaker_open');
  });

  it('closes when the store answers one read', async () => {
    const { cache, outcome, open, clock, server, changes } = await lendBroken({ readDeadlineMs: LONG_DEADLINE_MS });
    await open();
    expect(cache.state.reads).to.include({ isUp: false });
    server.resume();
    expect(await outcome()).to.equal('breaker_open');
    clock.advance(RETRY_MS);
    expect(await outcome()).to.equal('hit');
    expect(await outcome()).to.equal('hit');
    expect(changes.map(({ isOpen }) => isOpen)).to.deep.equal([true, false]);
    expect(cache.state.reads).to.include({ isUp: true });
  });

  it('admits a read as soon as a lost connection is there again', async () => {
    const { cache, outcome, proxy } = await lendBroken({ readDeadlineMs: LONG_DEADLINE_MS });
    proxy.refuse();
    proxy.cut();
    await eventually(() => expect(cache.state.connection).to.include({ isUp: false }));
    await eventually(async () => expect(await outcome()).to.equal('breaker_open'));
    await proxy.accept();
    await eventually(() => expect(cache.state.connection).to.include({ isUp: true }));
    expect(await outcome()).to.equal('hit'); // the breaker's clock has not moved
  });

  it('lets bumps through, which fail or succeed by themselves', async () => {
    const { items, value, rows, outcome, open, server, clock, counted } = await lendBroken();
    await open();
    const refused = rejection(items.bump({ item: 1 }));
    expect(await outcome()).to.equal('breaker_open');
    expect(await refused).to.deep.include({ code: 'BUMP', outcome: 'unknown' }); // sent, and not answered in time
    server.resume();
    rows.set(1, 'newer');
    await eventually(() => items.bump({ item: 1 })); // while the breaker is open
    expect(await outcome()).to.equal('breaker_open');
    clock.advance(RETRY_MS);
    expect(await value.fetch({ item: 1 })).to.equal('newer');
    expect(counted('misses')).to.equal(1); // of the probe
  });

  it('keeps the event loop going under a caller that reads again without a pause', async () => {
    const { outcome, open } = await lendBroken();
    await open();
    const turns: number[] = [];
    setImmediate(() => setImmediate(() => turns.push(1)));
    for (let i = 0; i < 10; i++) expect(await outcome()).to.equal('breaker_open');
    expect(turns).to.have.length(1);
  });

  it('of a cache with `breakerFailures: 0` never opens', async () => {
    const { outcome, server, changes } = await lendBroken({ breakerFailures: 0 });
    server.pause();
    for (let i = 0; i < 6; i++) expect(await outcome()).to.equal('store_failure');
    expect(changes).to.deep.equal([]);
  });

  it('is asked once by a call of several chunks', async () => {
    const rows = new Map(Array.from({ length: 2_500 }, (_, i) => [i, i]));
    const { value, counted, server } = await lendBroken({ breakerFailures: 1, rows });
    server.pause();
    const items = Array.from({ length: 2_500 }, (_, item) => ({ item }));
    expect(await value.fetchMany(items)).to.deep.equal(items.map(({ item }) => item));
    expect(counted('store_failures', { operation: 'read' })).to.equal(1);
    expect(await value.fetchMany(items)).to.have.length(2_500);
    expect(counted('store_failures', { operation: 'read' })).to.equal(1);
    expect(counted('bypasses', { reason: 'breaker_open' })).to.equal(2_500);
  });
});

describe('the breaker of fills', () => {
  it('opens alone when Redis has no room, and closes when it has room again', async () => {
    const server = await privateRedis();
    const admin = lendRedis({ url: server.url });
    const clock = manualClock();
    const lent = lendCache({ url: server.url, clock, ttlMs: 3_600_000, rows: new Map([[1, 'one']]) });
    const { cache, items } = lent;
    const { fetch, outcome } = watchReads(lent);
    await fetch(1);
    // Their generations are minted while there is room.
    for (let item = 2; item <= 7; item++) expect(await outcome(item)).to.equal('miss');
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
    await admin.config('SET', 'maxmemory', '1');

    for (let item = 2; item <= 6; item++) await fetch(item);
    expect(cache.statistics.total('refused_fills', { reason: 'store_failure' })).to.equal(3);
    expect(cache.statistics.total('refused_fills', { reason: 'breaker_open' })).to.equal(2);
    expect(cache.statistics.total('breaker_openings')).to.equal(1);
    expect(cache.state).to.deep.include({ reads: { ...cache.state.reads, isUp: true } });
    expect(cache.state.fills).to.include({ isUp: false });
    expect(cache.state.fills.error!.message).to.contain('OOM');
    expect(await outcome(1)).to.equal('hit'); // reads go on
    await items.bump({ item: 1 }); // and so do bumps
    expect(await outcome(1)).to.not.equal('hit');

    await admin.config('SET', 'maxmemory', '0');
    await fetch(2);
    expect(await outcome(2)).to.equal('miss'); // no fill was tried
    clock.advance(RETRY_MS);
    await fetch(2);
    expect(await outcome(2)).to.equal('absent'); // the probe has stored it
    expect(cache.state.fills).to.include({ isUp: true });
  });
});
