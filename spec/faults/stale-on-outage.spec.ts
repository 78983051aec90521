/**
 * Outages of Redis, and of the network to it, while local tiers serve what they last knew (`staleOnOutageMs`; docs/protocol.md,
 * rule 14c). Each version is a number, and the processes read without a pause; what a read may answer is told by the history
 * of bumps:
 *
 * - never a version from before a bump by its own process that had ended when the read began, successful or not;
 * - unmarked, none from before any bump that had returned by then, with `mode: 'track'` a heartbeat earlier;
 * - marked, none that was old at the moment of which the mark tells, and none beyond the grace.
 */
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { LocalOptions, Staleness } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { type Proxy, startProxy } from '../support/proxy.js';
import { privateRedis, redisUrl, uniqueName } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';
import type { RedisServer } from '../support/servers/redis-server.js';
import { createItems, openShop } from '../support/shop.js';

const HEARTBEAT_MS = 400;
const GRACE_MS = 60_000;
const ITEMS = [1, 2, 3] as const;
const MODES: readonly LocalOptions[] = [
  { mode: 'verify', maxEntries: 100, staleOnOutageMs: GRACE_MS },
  { mode: 'track', maxEntries: 100, heartbeatMs: HEARTBEAT_MS, staleOnOutageMs: GRACE_MS },
];

/** A way to take Redis away from all processes, or from those behind these proxies; returns how it comes back. */
type Fault = (server: RedisServer, proxies: readonly Proxy[]) => () => unknown;

const FAULTS: Readonly<Record<string, Fault>> = {
  'is killed, and back empty': (server) => {
    const killed = server.kill('SIGKILL');
    return () => killed.then(() => server.restart());
  },
  'is stopped': (server) => (server.pause(), () => server.resume()),
  'is cut off from one process': (_server, proxies) => {
    for (const proxy of proxies) {
      proxy.refuse();
      proxy.cut();
    }
    return () => Promise.all(proxies.map((proxy) => proxy.accept()));
  },
  'is silent for one process': (_server, proxies) => {
    for (const proxy of proxies) proxy.hold();
    return () => proxies.forEach((proxy) => proxy.release());
  },
  'hears one process, and is not heard': (_server, proxies) => {
    for (const proxy of proxies) proxy.holdReplies();
    return () => proxies.forEach((proxy) => proxy.releaseReplies());
  },
};

/** Two processes of one cache, which read all items without a pause, and bump what they change. */
class World {
  readonly violations: string[] = [];
  readonly rows = new Map<number, unknown>(ITEMS.map((item) => [item, 0]));
  readonly processes: readonly Process[];
  /** The bumps that have returned, of each item. */
  readonly #returned: { readonly item: number; readonly version: number; readonly atMs: number }[] = [];
  #version = 0;

  static async open(server: RedisServer, local: LocalOptions): Promise<World> {
    return new World(await Promise.all([1, 2].map(() => startProxy(server.port))), local);
  }

  private constructor(proxies: readonly Proxy[], local: LocalOptions) {
    const name = uniqueName();
    this.processes = proxies.map((proxy) => new Process(this, proxy, name, local));
  }

  /** Changes an item, and bumps it from a process. */
  async change(by: Process, item: number): Promise<void> {
    const version = ++this.#version;
    this.rows.set(item, version);
    const error = await by.items.bump({ item }).catch((thrown: unknown) => thrown);
    by.written.set(item, Math.max(by.written.get(item) ?? 0, version));
    if (error === undefined) this.#returned.push({ item, version, atMs: performance.now() });
  }

  /** When a bump returned that made a version old. */
  oldSinceMs(item: number, version: number): number {
    return this.#returned.find((bump) => bump.item === item && bump.version > version)?.atMs ?? Infinity;
  }
}

class Process {
  readonly proxy: Proxy;
  readonly items: ReturnType<typeof lendCache>['items'];
  /** The last change of each item by this process whose bump has ended. */
  readonly written = new Map<number, number>();
  stale = 0;
  /** Reads in a row that were hits of all items. */
  hits = 0;
  #isEnding = false;

  constructor(world: World, proxy: Proxy, name: string, local: LocalOptions) {
    this.proxy = proxy;
    const lent = lendCache({
      ...{ name, rows: world.rows, url: proxy.url, local, ttlMs: 600_000 },
      ...{ readDeadlineMs: 100, bumpDeadlineMs: 100, breakerRetryMs: 100 },
    });
    this.items = lent.items;
    const slackMs = local.mode === 'track' ? HEARTBEAT_MS : 0;
    const read = async () => {
      const beganMs = performance.now();
      const loads = lent.loads.length;
      const written = new Map(this.written);
      const marks = new Map<number, Staleness>();
      const versions = await lent.value.fetchMany(
        ITEMS.map((item) => ({ item })),
        { onStale: ({ index, ...stale }) => marks.set(index, stale) },
      );
      for (const [i, item] of ITEMS.entries()) {
        const version = versions[i] as number;
        const stale = marks.get(i);
        const oldMs = world.oldSinceMs(item, version);
        // A lookup that failed was under way for a while, so the moment of a mark is not earlier than this.
        const stoodMs = stale === undefined ? beganMs - slackMs : beganMs - stale.staleForMs;
        if (version < (written.get(item) ?? 0) || oldMs < stoodMs || (stale?.staleForMs ?? 0) > GRACE_MS) {
          world.violations.push(
            `${local.mode}: item ${item} read as ${version}; own ${written.get(item)}, old for ${beganMs - oldMs} ms, ${JSON.stringify(stale)}`,
          );
        }
      }
      if (marks.size > 0) this.stale++;
      this.hits = marks.size === 0 && lent.loads.length === loads ? this.hits + 1 : 0;
    };
    const running = (async () => {
      while (!this.#isEnding) {
        await read();
        await setImmediate();
      }
    })();
    lend({ what: 'the reads', close: async () => ((this.#isEnding = true), running) });
  }
}

describe('local tiers with a grace for outages', () => {
  for (const [what, fault] of Object.entries(FAULTS)) {
    it(`while Redis ${what}: reads are as old as they say, and a process reads its own writes`, async () => {
      const server = await privateRedis();
      const worlds = await Promise.all(MODES.map((local) => World.open(server, local)));
      const changeAll = () =>
        Promise.all(worlds.flatMap((world) => world.processes.map((by, i) => world.change(by, ITEMS[i]!))));
      const settled = (world: World) =>
        eventually(() => {
          for (const process of world.processes) expect(process.hits).to.be.above(5);
        });
      for (let round = 0; round < 2; round++) {
        await Promise.all(worlds.map(settled));
        // The outage begins as soon as bumps have returned.
        await changeAll();
        const before = worlds.map(({ processes: [hit] }) => hit!.stale);
        const end = fault(
          server,
          worlds.map(({ processes: [hit] }) => hit!.proxy),
        );
        // Items 1 and 2 are changed meanwhile, each by one process; item 3 is served as it was.
        await eventually(() => {
          for (const [i, { processes }] of worlds.entries()) expect(processes[0]!.stale).to.be.above(before[i]!);
        });
        for (let changes = 0; changes < 3; changes++) {
          await changeAll();
          await sleep(Math.random() * 100);
        }
        await end();
      }
      await changeAll();
      await Promise.all(worlds.map(settled));
      expect(worlds.flatMap(({ violations }) => violations)).to.deep.equal([]);
    });
  }

  for (const local of MODES) {
    it(`with a bound, cut off from Redis alone: no read exceeds the bound (${local.mode})`, async () => {
      const boundMs = 1_000;
      const db = await lendOutbox();
      await createItems(db);
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const writer = openShop(db, { maxStalenessMs: boundMs });
      lendRelay({ db, cache: writer.name, maxStalenessMs: [boundMs] });
      const reader = openShop(db, { name: writer.name, redis: proxy.url, maxStalenessMs: boundMs, local });
      /** By price: since when it is old, at the earliest. */
      const oldSinceMs: number[] = [];
      let stale = 0;
      const phase = { isOver: false };
      const read = async () => {
        const beganMs = performance.now();
        let isStale = false;
        const price = (await reader.price.fetch({ item: 1 }, { onStale: () => (isStale = true) }))!;
        const oldForMs = beganMs - (oldSinceMs[price] ?? Infinity);
        expect(oldForMs, `price ${price}, ${isStale ? 'stale' : 'verified'}`).to.be.at.most(boundMs);
        if (isStale) stale++;
        return isStale;
      };
      let price = 0;
      const write = async () => {
        await writer.set(++price);
        oldSinceMs[price - 1] = performance.now();
      };
      for (let writes = 0; writes < 5; writes++) await Promise.all([write(), read()]);
      // Warm, once a lookup follows one beside which the store told how long it is fresh.
      await eventually(async () => {
        await read();
        await reader.cache.settled();
        for (let lookups = 0; lookups < 4; lookups++) {
          await sleep(boundMs / 8);
          expect((await reader.price.lookup({ item: 1 })).outcome).to.equal('hit');
        }
      });
      proxy.refuse();
      proxy.cut();
      const writing = (async () => {
        while (!phase.isOver) await write().then(() => sleep(20));
      })();
      await eventually(async () => expect(await read()).to.equal(true));
      await eventually(async () => expect(await read()).to.equal(false));
      for (let reads = 0; reads < 20; reads++) expect(await read()).to.equal(false);
      phase.isOver = true;
      await writing;
      expect(stale).to.be.above(0);
      expect(oldSinceMs.length).to.be.above(3);
    });
  }
});
