import { expect } from 'chai';
import type { CacheEvents } from '../../lib/index.js';
import { lendCache, type LentCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lendRedis } from '../support/redis.js';

describe('a listener', () => {
  describe('of decodeFailure', () => {
    const uses: Record<string, (lent: LentCache) => Promise<unknown>> = {
      'looks up': ({ value }) => value.lookup({ item: 2 }),
      fetches: ({ value }) => value.fetch({ item: 2 }),
      deletes: ({ value }) => value.delete({ item: 2 }),
    };
    const spoils: Record<string, (lent: LentCache) => Promise<unknown>> = {
      async 'a corrupt entry'({ value }) {
        const looked = await value.lookup({ item: 1 });
        if (looked.outcome !== 'hit') throw new Error('expected a hit');
        await lendRedis().set(looked.vector.entryKey, 'corrupt', 'PX', 60_000);
      },
      'a malformed generation': ({ name }) =>
        lendRedis().set(`gencache:{${name}:0}:g:item=1`, 'not a generation', 'PX', 60_000),
    };

    for (const [what, spoil] of Object.entries(spoils)) {
      for (const [does, use] of Object.entries(uses)) {
        it(`that ${does}, on ${what}, leaves the other values of the batch as they are`, async () => {
          const lent = lendCache({ readDeadlineMs: 10_000, rows: new Map([1, 2, 3].map((item) => [item, 'old'])) });
          const { name, cache, value, rows } = lent;
          const ids = [{ item: 1 }, { item: 2 }, { item: 3 }];
          await value.fetchMany(ids);
          await cache.settled();
          await spoil(lent);
          rows.set(2, 'new');
          await lendCache({ name }).items.bump({ item: 2 }); // by another process
          const used: Promise<unknown>[] = [];
          cache.on('decodeFailure', () => used.push(use(lent)));
          expect(await value.fetchMany(ids)).to.deep.equal(['old', 'new', 'old']);
          expect(used).to.have.length(1);
          await Promise.all(used);
          expect(await value.fetch({ item: 2 })).to.equal('new');
        });
      }
    }
  });

  describe('with a failure', () => {
    /** The warnings and unhandled rejections of the process during `work` and two turns more. */
    async function told(work: () => Promise<void>): Promise<{ warnings: string[]; rejections: unknown[] }> {
      const warnings: string[] = [];
      const rejections: unknown[] = [];
      const onWarning = ({ name, message }: Error) => warnings.push(`${name}: ${message}`);
      const onRejection = (reason: unknown) => rejections.push(reason);
      process.on('warning', onWarning).on('unhandledRejection', onRejection);
      try {
        await work();
        await eventually(() => expect(warnings).to.not.be.empty);
        await new Promise(setImmediate);
      } finally {
        process.off('warning', onWarning).off('unhandledRejection', onRejection);
      }
      return { warnings, rejections };
    }

    const failures: Record<string, () => void> = {
      throws() {
        throw new Error('my exporter');
      },
      // The types allow an async listener, since a promise is assignable to void.
      async rejects() {
        throw new Error('my exporter');
      },
      async 'rejects later'() {
        await new Promise(setImmediate);
        throw new Error('my exporter');
      },
    };

    for (const [does, fail] of Object.entries(failures)) {
      it(`that ${does} becomes a process warning, and reaches no caller`, async () => {
        const { cache, value, items, rows } = lendCache({ readDeadlineMs: 10_000 });
        rows.set(1, 'one');
        const heard: string[] = [];
        const names: (keyof CacheEvents)[] = ['read', 'bump'];
        for (const name of names) {
          cache.on(name, fail);
          cache.on(name, () => heard.push(name));
        }
        const { warnings, rejections } = await told(async () => {
          expect(await value.fetch({ item: 1 })).to.equal('one');
          await items.bump({ item: 1 });
        });
        expect(rejections).to.deep.equal([]);
        expect(warnings).to.deep.equal(
          names.map((name) => `GencacheListenerWarning: A gencache listener of "${name}" threw: Error: my exporter`),
        );
        expect(heard).to.deep.equal(names);
        expect(cache.statistics.total('misses')).to.equal(1);
      });
    }
  });
});
