import type { StandardSchemaV1 } from '@standard-schema/spec';
import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore, type Store } from '../../lib/index.js';
import { bypassStore, manualClock } from '../../lib/testing/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedis, uniqueName } from '../support/redis.js';

describe('a shared load', () => {
  describe('that takes longer than the TTL', () => {
    /** A load that is held open, begun before a change without a bump. */
    async function lendSlow() {
      const clock = manualClock();
      const lent = lendCache({ ttlMs: 50, clock, readDeadlineMs: 10_000, rows: new Map([[1, 'old']]) });
      const release = lent.hold();
      const first = lent.value.fetch({ item: 1 });
      await eventually(() => expect(lent.loads).to.have.length(1));
      lent.rows.set(1, 'new');
      /** Fetches; resolves after the answer to its lookup, as an answer to a later call on the same connection proves. */
      const fetchMeanwhile = async () => {
        const answer = lent.value.fetch({ item: 1 });
        await new Promise(setImmediate);
        await lent.value.lookup({ item: 1 });
        return { answer };
      };
      return { ...lent, clock, release, first, fetchMeanwhile };
    }

    it('is not joined by a reader that starts after the TTL', async () => {
      const { cache, clock, release, first, loads, fetchMeanwhile } = await lendSlow();
      clock.advance(50);
      const late = await fetchMeanwhile();
      expect(loads).to.deep.equal([[1], [1]]);
      const later = await fetchMeanwhile(); // joins the second
      release();
      expect(await Promise.all([first, late.answer, later.answer])).to.deep.equal(['old', 'new', 'new']);
      await cache.settled();
      expect(loads).to.have.length(2);
      expect(cache.statistics.total('fills')).to.equal(1);
      expect(cache.statistics.total('refused_fills', { reason: 'expired' })).to.equal(1);
    });

    it('is joined by a reader that starts before the TTL ends, and its fill is refused', async () => {
      const { value, cache, clock, release, first, loads, fetchMeanwhile } = await lendSlow();
      clock.advance(49);
      const early = await fetchMeanwhile();
      clock.advance(1);
      release();
      expect(await Promise.all([first, early.answer])).to.deep.equal(['old', 'old']);
      await cache.settled();
      expect(loads).to.deep.equal([[1]]);
      expect(cache.statistics.total('refused_fills', { reason: 'expired' })).to.equal(1);
      expect(await value.fetch({ item: 1 })).to.equal('new');
    });
  });

  describe('whose rows share an object', () => {
    interface Row {
      readonly item: number | string;
      readonly shared: { readonly tags: string[] };
    }

    /** All rows of one load hold the same object, `shared`. */
    function lendSharing(schema?: StandardSchemaV1) {
      const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
      lend({ what: 'the cache', close: () => cache.close() });
      const value = cache.namespace('item', integer()).one('value', {
        async load(ids): Promise<Row[]> {
          const shared = { tags: ['db'] };
          return ids.map(({ item }) => ({ item, shared }));
        },
        by: ({ item }) => ({ item }),
        ...(schema && { schema }),
      });
      return { cache, value };
    }

    const schemas: Record<string, StandardSchemaV1 | undefined> = {
      'no schema': undefined,
      'a schema': { '~standard': { version: 1, vendor: 'spec', validate: (value) => ({ value }) } },
      'an asynchronous schema': {
        '~standard': {
          version: 1,
          vendor: 'spec',
          async validate(value) {
            await new Promise(setImmediate);
            return { value };
          },
        },
      },
    };

    for (const [which, schema] of Object.entries(schemas)) {
      it(`with ${which} stores the loaded values, even if a caller changes its own at once`, async () => {
        const { cache, value } = lendSharing(schema);
        const mutating = value.fetch({ item: 1 }).then((row) => row?.shared.tags.push('mine'));
        await Promise.all([mutating, value.fetchMany([2, 3, 4].map((item) => ({ item })))]);
        await cache.settled();
        const cached = await value.fetchMany([1, 2, 3, 4].map((item) => ({ item })));
        expect(cached.map((row) => row?.shared.tags)).to.deep.equal([['db'], ['db'], ['db'], ['db']]);
        expect(cache.statistics.total('hits')).to.equal(4);
        expect(cache.statistics.total('queries_run')).to.equal(1);
      });
    }
  });

  describe('by calls that ask for more scopes than the process remembers', () => {
    for (const [which, store] of Object.entries({ 'an in-memory store': memoryStore, 'a bypass store': bypassStore })) {
      it(`loads each id once, on ${which}`, async () => {
        const { value, loads } = lendCache({
          store: store(),
          rememberedScopesMax: 1,
          rows: new Map([1, 2].map((item) => [item, `v${item}`])),
        });
        const answers = Promise.all([
          value.fetchMany([1, 2, 1].map((item) => ({ item }))),
          value.fetchMany([2, 1].map((item) => ({ item }))),
        ]);
        expect(await answers).to.deep.equal([
          ['v1', 'v2', 'v1'],
          ['v2', 'v1'],
        ]);
        expect(loads).to.deep.equal([[1, 2]]);
      });
    }
  });

  describe('while the store is not used', () => {
    async function expectOwnValues({ value, rows, loads, cache }: ReturnType<typeof lendCache>) {
      rows.set(1, { tags: ['db'] });
      const before = loads.length;
      const bypasses = cache.statistics.total('bypasses');
      const [one, two, both] = await Promise.all([
        value.fetch({ item: 1 }),
        value.fetch({ item: 1 }),
        value.fetchMany([{ item: 1 }, { item: 1 }]),
      ]);
      (one as { tags: string[] }).tags.push('mine');
      (two as { tags: string[] }).tags.length = 0;
      expect(both).to.deep.equal([{ tags: ['db'] }, { tags: ['db'] }]);
      expect(loads.slice(before)).to.deep.equal([[1]]);
      expect(cache.statistics.total('bypasses')).to.equal(bypasses + 3);
    }

    const stores: Record<string, () => Store> = {
      'on a bypass store': bypassStore,
      'on a store that declares itself bypassed': () => ({ ...memoryStore(), bypassed: true }),
    };
    for (const [why, store] of Object.entries(stores)) {
      it(`gives calls of one turn values of their own, ${why}`, async () => {
        await expectOwnValues(lendCache({ store: store() }));
      });
    }

    it('gives calls of one turn values of their own, when Redis does not answer', async () => {
      const server = await privateRedis();
      const lent = lendCache({ url: server.url });
      await lent.value.fetch({ item: 2 }); // connected
      server.pause();
      await expectOwnValues(lent);
      server.resume();
    });
  });
});
