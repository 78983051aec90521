import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import type { Store } from '../../lib/index.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lendCache } from './cache.js';
import { eventually } from './deferred.js';
import { lend } from './lenders.js';
import { ownClients } from './own-clients.js';
import { lendRedis, type LendRedisOptions, uniqueName } from './redis.js';
import { HEARTBEAT_MS, TrackedProcess } from './tracked-process.js';

const ITEMS = [1, 2, 3, 4] as const;

/**
 * Two processes of one cache: a writer, and a reader that tracks generations and reads without a pause, by `peek` and by
 * `fetch`. Each value is the number of its version, and the writer knows since when a version is old: since its bump
 * returned.
 */
export class TrackedCache extends TrackedProcess {
  readonly reader: ReturnType<typeof lendCache>;
  readonly #shared = {
    ...{ name: uniqueName(), rows: new Map<number, unknown>(), ttlMs: 600_000 },
    ...{ readDeadlineMs: 200, breakerRetryMs: 100, bumpDeadlineMs: 60_000 },
  };
  readonly #clients: readonly Redis[];
  #writer: ReturnType<typeof lendCache>;
  /** The versions that the store may answer. */
  #standing = new Set<unknown>();
  /** By version: since when it is old. */
  readonly #old = new Map<unknown, number>();
  #version = 0;
  #isEnding = false;

  /** `url`: the writer's Redis. `reader`: the reader's. `pushesPort`: where its tracking connection leads, if elsewhere. */
  static async open({
    url,
    reader = { url },
    pushesPort,
  }: {
    url: string;
    reader?: LendRedisOptions;
    pushesPort?: number;
  }): Promise<TrackedCache> {
    const client = lendRedis({ ...reader, lazyConnect: true });
    const clients = ownClients(client, pushesPort);
    const store = redisStore(client) as Store;
    const caches = new TrackedCache(url, store, clients);
    await caches.bumpAll();
    await caches.settled();
    return caches;
  }

  private constructor(url: string, store: Store, clients: readonly Redis[]) {
    super();
    const local = { mode: 'track', maxEntries: 100, heartbeatMs: HEARTBEAT_MS } as const;
    this.reader = lendCache({ ...this.#shared, store, local });
    this.#writer = this.#lendWriter(url);
    this.#clients = clients;
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

  /** Where the reader's connection for commands leads. */
  get commandsPort(): number | undefined {
    return this.#clients[0]!.stream?.remotePort;
  }

  /** The client of the tracking connection. */
  get trackingClient(): Redis {
    return this.#clients[1]!;
  }

  /** The keys of the items' generations. */
  get keys(): string[] {
    return ITEMS.map((item) => generationKey(keyPrefix(this.#shared.name), `item=${item}`));
  }

  get versions(): unknown[] {
    return [...this.#shared.rows.values()];
  }

  /** Has the other process write on another server from now on. */
  writeOn(url: string): void {
    this.#writer = this.#lendWriter(url);
  }

  /** Changes all items; `by` makes the versions of before unreachable, as a bump does. */
  async change(by: () => Promise<unknown>): Promise<void> {
    for (const item of ITEMS) this.#shared.rows.set(item, ++this.#version);
    await by();
    for (const version of this.#standing) this.#old.set(version, performance.now());
    this.#standing = new Set(this.versions);
  }

  /** Changes all items, and bumps them from the other process. */
  bumpAll(): Promise<void> {
    return this.change(() => this.#writer.items.bumpMany(ITEMS.map((item) => ({ item }))));
  }

  /** The store has gone back in time: it may answer these versions, too, until the next change. */
  wentBackTo(versions: readonly unknown[]): void {
    for (const version of versions) {
      this.#old.delete(version);
      this.#standing.add(version);
    }
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

  #lendWriter(url: string): ReturnType<typeof lendCache> {
    return lendCache({ ...this.#shared, url });
  }

  #check(how: string, version: unknown, beganAtMs: number): void {
    const oldForMs = beganAtMs - (this.#old.get(version) ?? Infinity);
    if (oldForMs > HEARTBEAT_MS) this.violations.push(`${how} answered ${String(version)}, old for ${oldForMs} ms`);
  }

  async #peek(): Promise<void> {
    while (!this.#isEnding) {
      // Peeks of one run may share a reading of the clock (docs/protocol.md, rule 14b).
      const beganAtMs = performance.now();
      for (const item of ITEMS) {
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
