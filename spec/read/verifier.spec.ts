import { expect } from 'chai';
import { memoryStore, type StaleEntryEvent, StoreUnavailableError } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { deferred, eventually } from '../support/deferred.js';

describe('verifyRate', () => {
  it('finds a planted stale entry, and reports it with its vector', async () => {
    const lines: string[] = [];
    const log = { debug() {}, info() {}, warn() {}, error: (line: string) => lines.push(line) };
    const { cache, value, rows } = lendCache({ verifyRate: 1, verifyDelayMs: 5, verifyDeletes: false, log });
    const stale: StaleEntryEvent[] = [];
    cache.on('staleEntry', (event) => stale.push(event));
    rows.set(1, 'old');
    await value.fetch({ item: 1 });
    await cache.settled();
    rows.set(1, 'new'); // without a bump

    expect(await value.fetch({ item: 1 })).to.equal('old');
    await cache.settled();

    expect(stale).to.have.length(1);
    expect(stale[0]).to.deep.include({ entry: 'value', path: 'item=1', cached: 'old', loaded: 'new', deleted: false });
    expect(String(stale[0]!.vector)).to.match(/^global 0\.\S{16}, item=1 0\.\S{16}$/);
    expect(lines).to.have.length(1);
    expect(lines[0]).to.match(/: stale entry confirmed: value at item=1 under global 0\./);
    expect(cache.statistics.total('stale_entries')).to.equal(1);
    expect(cache.statistics.total('verified')).to.equal(1);
    // The two comparisons; neither counts as a query for a caller.
    expect(cache.statistics.total('queries_verifying')).to.equal(2);
    expect(cache.statistics.total('queries_run')).to.equal(1);
  });

  it('finds a planted row that the cache holds as absent', async () => {
    const { cache, value, rows } = lendCache({ verifyRate: 1, verifyDelayMs: 0 });
    const stale: StaleEntryEvent[] = [];
    cache.on('staleEntry', (event) => stale.push(event));
    await value.fetch({ item: 1 });
    await cache.settled();
    rows.set(1, 'appeared');
    expect(await value.fetch({ item: 1 })).to.equal(undefined);
    await cache.settled();
    expect(stale[0]).to.deep.include({ cached: undefined, loaded: 'appeared' });
  });

  it('deletes a confirmed stale entry, which its next reader loads', async () => {
    const lines: string[] = [];
    const log = { debug() {}, info() {}, warn() {}, error: (line: string) => lines.push(line) };
    const { cache, value, rows } = lendCache({ verifyRate: 1, verifyDelayMs: 0, log });
    const stale: StaleEntryEvent[] = [];
    cache.on('staleEntry', (event) => stale.push(event));
    for (const item of [1, 2, 3]) rows.set(item, 'old');
    const read = async () => {
      const values = await value.fetchMany([1, 2, 3].map((item) => ({ item })));
      await cache.settled();
      return values;
    };
    await read();
    rows.set(1, 'new'); // without a bump
    rows.set(2, 'new');
    expect(await read()).to.deep.equal(['old', 'old', 'old']);
    expect(stale.map(({ path, deleted }) => [path, deleted])).to.deep.equal([
      ['item=1', true],
      ['item=2', true],
    ]);
    expect(lines[0]).to.match(/: stale entry confirmed, and deleted: value at item=1 under global 0\./);
    expect(await read()).to.deep.equal(['new', 'new', 'old']);
    expect(cache.statistics.total('hits')).to.equal(4);
    expect(stale).to.have.length(2);
  });

  it('reports a confirmed stale entry that the store does not delete', async () => {
    const store = { ...memoryStore(), delete: () => Promise.reject(new StoreUnavailableError('gone', false)) };
    const { cache, value, rows } = lendCache({ verifyRate: 1, verifyDelayMs: 0, store });
    const stale: StaleEntryEvent[] = [];
    cache.on('staleEntry', (event) => stale.push(event));
    rows.set(1, 'old');
    for (let i = 0; i < 2; i++) {
      await value.fetch({ item: 1 });
      await cache.settled();
      rows.set(1, 'new');
    }
    expect(stale.map(({ deleted }) => deleted)).to.deep.equal([false]);
    expect(cache.statistics.total('store_failures', { operation: 'delete' })).to.equal(1);
  });

  it('accepts a value that does not equal itself, such as an invalid Date', async () => {
    const { cache, value, rows } = lendCache({ verifyRate: 1, verifyDelayMs: 0 });
    rows.set(1, { at: new Date(NaN) });
    await value.fetch({ item: 1 });
    await cache.settled();
    await value.fetch({ item: 1 });
    await cache.settled();
    expect(cache.statistics.total('verified')).to.equal(1);
    expect(cache.statistics.total('stale_entries')).to.equal(0);
  });

  it('finds no stale entry in a healthy run of edits with bumps', async () => {
    const { cache, value, rows, items } = lendCache({ verifyRate: 1, verifyDelayMs: 20 });
    for (let id = 0; id < 20; id++) rows.set(id, { id, edits: 0 });
    const ids = [...rows.keys()].map((item) => ({ item }));
    for (let round = 0; round < 30; round++) {
      const item = round % 20;
      rows.set(item, { id: item, edits: round });
      const bumped = items.bump({ item });
      await value.fetchMany(ids);
      await bumped;
    }
    await cache.settled();
    expect(cache.statistics.total('verified')).to.be.greaterThan(400);
    expect(cache.statistics.total('stale_entries')).to.equal(0);
  });

  it('counts a difference as settled when the bump arrives before the second comparison', async () => {
    const { cache, value, rows, items } = lendCache({ verifyRate: 1, verifyDelayMs: 500 });
    let settled = 0;
    cache.on('verify', (event) => (settled += event.settled));
    rows.set(1, 'old');
    await value.fetch({ item: 1 });
    await cache.settled();
    rows.set(1, 'new'); // committed; the bump is on its way
    const seen = deferred();
    cache.on('load', ({ purpose }) => purpose === 'verify' && seen.resolve());
    expect(await value.fetch({ item: 1 })).to.equal('old');
    await seen.promise;
    await items.bump({ item: 1 });
    await cache.settled();
    expect(settled).to.equal(1);
    expect(cache.statistics.total('stale_entries')).to.equal(0);
  });

  it('reports a failing source, and leaves the caller’s answer alone', async () => {
    const errors: unknown[] = [];
    const { cache, value, rows } = lendCache({ verifyRate: 1 });
    cache.on('verify', ({ error }) => errors.push(error));
    rows.set(1, 'one');
    await value.fetch({ item: 1 });
    await cache.settled();
    rows.has = () => {
      throw new Error('source down');
    };
    expect(await value.fetch({ item: 1 })).to.equal('one');
    await cache.settled();
    expect(errors).to.have.length(1);
    expect((errors[0] as Error).message).to.equal('source down');
  });

  it('verifies about the configured share of hits', async () => {
    const { cache, value, rows } = lendCache({ verifyRate: 0.2 });
    rows.set(1, 'one');
    await value.fetch({ item: 1 });
    await cache.settled();
    for (let i = 0; i < 500; i++) {
      await value.fetch({ item: 1 });
      await cache.settled();
    }
    // 500 draws of 0.2: mean 100, standard deviation 9
    expect(cache.statistics.total('verified')).to.be.within(50, 150);
  });

  it('does not delay close until a second comparison', async () => {
    const { cache, value, rows, loads } = lendCache({ verifyRate: 1, verifyDelayMs: 3_600_000 });
    rows.set(1, 'old');
    await value.fetch({ item: 1 });
    await cache.settled();
    rows.set(1, 'new');
    await value.fetch({ item: 1 });
    await eventually(() => expect(loads).to.have.length(2));
    await cache.close();
    expect(cache.statistics.total('stale_entries')).to.equal(0);
  });
});
