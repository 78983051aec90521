import { expect } from 'chai';
import type { StandardSchemaV1 } from '@standard-schema/spec';
import { GenerationalCache, integer, memoryStore } from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { lendCache } from './support/cache.js';
import { eventually } from './support/deferred.js';
import { lend } from './support/lenders.js';
import { startProxy } from './support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from './support/redis.js';
import { rejection } from './support/rejection.js';
import type { RedisServer } from './support/servers/redis-server.js';
import { runProgram } from './support-specs/programs/run.js';

describe('close', () => {
  it('is called at the end of a block that declares the cache with `await using`', async () => {
    let cache;
    {
      await using own = new GenerationalCache({ name: uniqueName(), store: memoryStore() });
      cache = own;
      await own.bump();
    }
    expect(await rejection(cache.bump())).to.have.property('code', 'CLOSED');
  });

  describe('waits for work under way:', () => {
    let server: RedisServer;

    before(async () => {
      server = await privateRedis();
    });

    /** A cache that holds `one` for item 1 and has looked up item 2, on a network that is held. */
    async function lendHeld(schema?: StandardSchemaV1) {
      const proxy = await startProxy(server.port);
      const cache = new GenerationalCache({
        name: uniqueName(),
        store: redisStore(lendRedis({ url: proxy.url, lazyConnect: true })),
        ...{ readDeadlineMs: 10_000, fillDeadlineMs: 10_000, bumpDeadlineMs: 10_000 },
      });
      lend({ what: 'the cache', close: () => cache.close() });
      const items = cache.namespace('item', integer());
      const value = items.one<{ item: number; is: string }>('value', {
        load: async (ids) => ids.map(({ item }) => ({ item: Number(item), is: 'loaded' })),
        by: ({ item }) => ({ item }),
        ...(schema && { schema }),
      });
      await value.fetch({ item: 1 });
      await cache.settled();
      const looked = await value.lookup({ item: 2 });
      if (looked.outcome !== 'miss') throw new Error('expected a miss');
      const direct = lendRedis({ url: server.url });
      proxy.hold();
      return { proxy, cache, items, value, vector: looked.vector, direct };
    }

    type Held = Awaited<ReturnType<typeof lendHeld>>;

    const ids = Array.from({ length: 2_500 }, (_, item) => ({ item }));
    const works: Record<string, readonly [(held: Held) => Promise<unknown>, unknown]> = {
      'a bump': [({ items }) => items.bump({ item: 1 }), undefined],
      'a bumpMany of several commands': [({ items }) => items.bumpMany(ids), undefined],
      'an explicit fill': [({ value, vector }) => value.fill(vector, { item: 2, is: 'mine' }), 'filled'],
      'a lookup': [async ({ value }) => (await value.lookup({ item: 1 })).outcome, 'hit'],
      'a delete, of two commands': [({ value }) => value.delete({ item: 1 }), true],
      'a fetch': [({ value }) => value.fetch({ item: 1 }), { item: 1, is: 'loaded' }],
    };

    for (const [what, [work, result]] of Object.entries(works)) {
      it(what, async () => {
        const held = await lendHeld();
        const working = work(held);
        let closed = false;
        const closing = held.cache.close().then(() => (closed = true));
        for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
        expect(closed).to.equal(false);
        held.proxy.release();
        expect(await working).to.deep.equal(result);
        await closing;
      });
    }

    it('the fill behind an answer', async () => {
      const { proxy, cache, value, direct } = await lendHeld();
      const fetching = value.fetch({ item: 3 });
      const closing = cache.close();
      proxy.release();
      await fetching;
      await closing;
      expect(await direct.keys(`*${cache.name}:0}:e:*item=3*`)).to.have.length(1);
    });

    it('an explicit fill with a slow schema', async () => {
      const schema: StandardSchemaV1 = {
        '~standard': {
          version: 1,
          vendor: 'spec',
          async validate(value) {
            for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
            return { value };
          },
        },
      };
      const { proxy, cache, value, vector } = await lendHeld(schema);
      proxy.release();
      const filling = value.fill(vector, { item: 2, is: 'mine' });
      await cache.close();
      expect(await filling).to.equal('filled');
    });
  });

  describe('with a loader that never settles', () => {
    function lendHanging(closeDeadlineMs: number) {
      const lent = lendCache({ store: memoryStore(), closeDeadlineMs, rows: new Map([[1, 'one']]) });
      return { ...lent, release: lent.hold() };
    }

    it('resolves after closeDeadlineMs, and a late value still reaches its caller', async () => {
      const { cache, value, loads, release } = lendHanging(50);
      const read = value.fetch({ item: 1 });
      await eventually(() => expect(loads).to.have.length(1));
      const startedAtMs = performance.now();
      await cache.close();
      expect(performance.now() - startedAtMs).to.be.within(45, 2_000);
      release();
      expect(await read).to.equal('one');
    });

    it('resolves as soon as the loader settles after all, and leaves no timer', async () => {
      const { cache, value, release } = lendHanging(60_000);
      await Promise.resolve(); // mocha's own timer has started
      const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
      const before = timers();
      const read = value.fetch({ item: 1 });
      const closing = cache.close();
      release();
      await closing;
      expect(await read).to.equal('one');
      expect(timers()).to.be.at.most(before);
    });
  });

  describe('of a process whose Redis', () => {
    const EXIT_MAX_MS = 1_500;

    const faults: Record<string, (server: RedisServer) => unknown> = {
      'was killed': (server) => server.kill('SIGKILL'),
      'does not answer': (server) => server.pause(),
    };

    for (const [what, fault] of Object.entries(faults)) {
      it(`${what} lets the process end by itself, at once`, async () => {
        const server = await privateRedis();
        const program = runProgram('spec/programs/closing.ts', [server.url]);
        expect(await program.line()).to.equal('connected');
        await fault(server);
        expect(await program.line()).to.equal('closed');
        const closedAtMs = performance.now();
        expect(await program.ended).to.equal(0);
        expect(performance.now() - closedAtMs).to.be.below(EXIT_MAX_MS);
      });
    }
  });
});
