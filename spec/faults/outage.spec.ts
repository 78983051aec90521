import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Redis } from 'ioredis';
import { GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { type Proxy, startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import type { RedisServer } from '../support/servers/redis-server.js';

const ITEMS = 10;
const READERS = 20;
const LOAD_MS = 5;
const LOADS_MAX = 4;
const FAULT_MS = 1_200;

/** A fault, made and ended; `during` goes on in between. */
interface Fault {
  readonly args?: readonly string[];
  make(server: RedisServer, proxy: Proxy): Promise<unknown> | void;
  during?(server: RedisServer, proxy: Proxy): Promise<unknown>;
  end?(server: RedisServer, proxy: Proxy): Promise<unknown> | void;
  /** Whether a bump may fail meanwhile; where it may not, one that does is an error. */
  readonly bumpsFail: boolean;
}

const admin = (server: RedisServer) => lendRedis({ url: server.url });

const FAULTS: Readonly<Record<string, Fault>> = {
  'refuses connections': {
    bumpsFail: true,
    make: (server) => server.kill('SIGKILL'),
    end: (server) => server.restart(),
  },
  'is stopped': {
    bumpsFail: true,
    make: (server) => server.pause(),
    end: (server) => server.resume(),
  },
  'is slow by 10 ms': {
    bumpsFail: false,
    make: (_, proxy) => void (proxy.delayMs = 10),
    end: (_, proxy) => void (proxy.delayMs = 0),
  },
  'is slow by 300 ms': {
    bumpsFail: false,
    make: (_, proxy) => void (proxy.delayMs = 300),
    end: (_, proxy) => void (proxy.delayMs = 0),
  },
  'is slow by 3,000 ms': {
    bumpsFail: true,
    make: (_, proxy) => void (proxy.delayMs = 3_000),
    end(_, proxy) {
      proxy.delayMs = 0;
      proxy.cut();
    },
  },
  'flaps every 200 ms': {
    bumpsFail: true,
    make() {},
    async during(_, proxy) {
      proxy.refuse();
      proxy.cut();
      await sleep(200);
      await proxy.accept();
      await sleep(200);
    },
  },
  'has no room': {
    bumpsFail: false,
    async make(server) {
      await admin(server).config('SET', 'maxmemory-policy', 'noeviction');
      await admin(server).config('SET', 'maxmemory', '1');
    },
    end: (server) => admin(server).config('SET', 'maxmemory', '0'),
  },
  'loads its data': {
    args: [
      '--key-load-delay',
      '500',
      '--loading-process-events-interval-bytes',
      '1024',
      '--enable-debug-command',
      'yes',
    ],
    bumpsFail: true,
    async make(server) {
      await admin(server).call('DEBUG', 'POPULATE', '3000', 'filler', '100');
      await admin(server).call('SAVE');
      await server.kill('SIGKILL');
      void server.restart().catch(() => {});
    },
    end: (server) => eventually(() => admin(server).ping()),
  },
  'is a replica': {
    bumpsFail: true,
    make: (server) => admin(server).replicaof('127.0.0.1', 1),
    end: (server) => admin(server).replicaof('NO', 'ONE'),
  },
  'forgets its scripts': {
    bumpsFail: false,
    make() {},
    async during(server) {
      await admin(server).script('FLUSH');
      await sleep(5);
    },
  },
  'loses its connections in the middle of replies': {
    bumpsFail: true,
    make() {},
    during: (_, proxy) => Promise.race([proxy.dropReplies(), sleep(50)]),
  },
};

describe('Redis', () => {
  for (const [what, fault] of Object.entries(FAULTS)) {
    it(`${what}: no read fails, hangs or is old, the source gets no more than the cap, and hits return`, async () => {
      const server = await privateRedis({ args: fault.args ?? [] });
      const proxy = await startProxy(server.port);
      const client = new Redis(proxy.url, { lazyConnect: true });
      const cache = new GenerationalCache({ name: uniqueName(), store: redisStore(client), loadsMax: LOADS_MAX });
      let isClosed = false;
      lend({ what: 'the cache', close: () => (isClosed ? undefined : cache.close()) });
      const versions = Array.from({ length: ITEMS }, () => 1);
      let running = 0;
      let runningMax = 0;
      const items = cache.namespace('item', integer());
      const value = items.one('value', {
        async load(ids) {
          runningMax = Math.max(runningMax, ++running);
          const rows = ids.map(({ item }) => ({ item, version: versions[Number(item)]! }));
          await sleep(LOAD_MS).finally(() => running--);
          return rows;
        },
        by: ({ item }) => ({ item }),
        value: ({ version }) => version,
      });
      const over = new AbortController();
      let reads = 0;
      /** The version of each item whose bump has resolved: no reader that begins later may get an older one. */
      const bumped = [...versions];
      const reader = async () => {
        while (!over.signal.aborted) {
          const item = Math.floor(Math.random() * ITEMS);
          const least = bumped[item]!;
          expect(await value.fetch({ item }), `item ${item}`).to.be.at.least(least);
          reads++;
        }
      };
      const writer = async () => {
        while (!over.signal.aborted) {
          const item = Math.floor(Math.random() * ITEMS);
          const version = ++versions[item]!;
          await items.bump({ item }).then(
            () => (bumped[item] = version),
            (error: unknown) => {
              if (!fault.bumpsFail) throw error;
            },
          );
          await sleep(20);
        }
      };
      await eventually(async () => expect((await value.lookup({ item: 0 })).outcome).to.not.equal('bypass'));
      const running20 = [...Array.from({ length: READERS }, reader), writer()];
      await sleep(100);

      await fault.make(server, proxy);
      const before = reads;
      for (const untilMs = performance.now() + FAULT_MS; performance.now() < untilMs;) {
        await (fault.during?.(server, proxy) ?? sleep(50));
      }
      expect(reads - before, 'reads during the fault').to.be.above(100);
      await fault.end?.(server, proxy);

      await eventually(async () => {
        for (let item = 0; item < ITEMS; item++) await value.fetch({ item });
        expect((await value.lookup({ item: 0 })).outcome).to.equal('hit');
        expect(cache.state).to.deep.include({
          connection: { ...cache.state.connection, isUp: true },
          reads: { ...cache.state.reads, isUp: true },
          fills: { ...cache.state.fills, isUp: true },
        });
      });
      over.abort();
      await Promise.all(running20);
      expect(runningMax).to.be.at.most(LOADS_MAX);
      await cache.close();
      isClosed = true;
      client.disconnect();
      expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
    });
  }
});
