import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import type { Store } from '../../lib/index.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lendCache } from './cache.js';
import { eventually } from './deferred.js';
import { lend } from './lenders.js';
import { lendRedis, uniqueName } from './redis.js';

export const HEARTBEAT_MS = 400;
const ITEMS = [1, 2, 3] as const;

/**
 * Two processes of one cache: a writer, and a reader that tracks generations and reads without a pause, by `peek` and by
 * `fetch`. Each value is the number of its version, and the writer knows since when a version is old: since its bump
 * returned.
 */
export class TrackedCache {
  /** Versions that a read answered although they had been old for longer than the heartbeat when it began. */
  readonly violations: string[] = [];
  readonly reader: ReturnType<typeof lendCache>;
  readonly #writer: ReturnType<typeof lendCache>;
  /** By version: since when it is old. */
  readonly #old = new Map<unknown, number>();
  #version = 0;
  #isEnding = false;

  /** `urls`: of the writer's Redis, of the reader's connection for commands, and of its connection for pushes. */
  static async open({ url, commands = url, pushes = commands }: { url: string; commands?: string; pushes?: string }) {
    const client = lendRedis({ url: commands, lazyConnect: true });
    const store = redisStore(client);
    await withDeadline('time', 5_000, (deadline) => store.timeMs(deadline));
    // Each connection takes the options of the moment in which it opens: that for pushes opens with the first read.
    client.options.port = Number(new URL(pushes).port);
    const caches = new TrackedCache(url, store);
    await caches.bumpAll();
    await caches.settled();
    return caches;
  }

  private constructor(url: string, store: Store) {
    const shared = { name: uniqueName(), rows: new Map<number, unknown>(), ttlMs: 600_000 };
    const limits = { readDeadlineMs: 200, breakerRetryMs: 100, bumpDeadlineMs: 60_000 };
    this.#writer = lendCache({ ...shared, ...limits, url });
    const local = { mode: 'track', maxEntries: 100, heartbeatMs: HEARTBEAT_MS } as const;
    this.reader = lendCache({ ...shared, ...limits, store, local });
    const running = Promise.all([this.#peek(), this.#fetch()]);
    lend({
      what: 'the reads',
      close: async () => {
        this.#isEnding = true;
        await running;
      },
    });
  }

  get tracked(): number {
    return this.reader.cache.statistics.total('tracked_hits');
  }

  /** Changes all items, and bumps them from the other process. */
  async bumpAll(): Promise<void> {
    const before = ITEMS.map((item) => this.reader.rows.get(item));
    for (const item of ITEMS) this.reader.rows.set(item, ++this.#version);
    await this.#writer.items.bumpMany(ITEMS.map((item) => ({ item })));
    for (const version of before) this.#old.set(version, performance.now());
  }

  /** Resolves once the reader answers the present versions by itself. */
  async settled(): Promise<void> {
    await eventually(() => {
      const { rows, value } = this.reader;
      for (const item of ITEMS) expect(value.peek({ item })).to.equal(rows.get(item));
    });
  }

  /** Resolves once the reader answers nothing by itself. */
  async unverified(): Promise<void> {
    await eventually(() => {
      for (const item of ITEMS) expect(this.reader.value.peek({ item })).to.equal(undefined);
    });
  }

  async wait(ms = 2 * HEARTBEAT_MS): Promise<void> {
    const untilMs = performance.now() + ms;
    while (performance.now() < untilMs) await setImmediate();
  }

  /** With the fault over: the reader goes on, and what it answered was right. */
  async verify(): Promise<void> {
    await this.bumpAll();
    await this.settled();
    expect(this.violations).to.deep.equal([]);
    expect(this.tracked).to.be.above(0);
  }

  #check(how: string, version: unknown, beganAtMs: number): void {
    const oldForMs = beganAtMs - (this.#old.get(version) ?? Infinity);
    if (oldForMs > HEARTBEAT_MS) this.violations.push(`${how} answered ${String(version)}, old for ${oldForMs} ms`);
  }

  async #peek(): Promise<void> {
    while (!this.#isEnding) {
      for (const item of ITEMS) {
        const beganAtMs = performance.now();
        const version = this.reader.value.peek({ item });
        if (version !== undefined) this.#check('peek', version, beganAtMs);
      }
      await setImmediate();
    }
  }

  async #fetch(): Promise<void> {
    while (!this.#isEnding) {
      const beganAtMs = performance.now();
      const versions = await this.reader.value.fetchMany(ITEMS.map((item) => ({ item })));
      for (const version of versions) if (version !== undefined) this.#check('fetch', version, beganAtMs);
      await setImmediate();
    }
  }
}
