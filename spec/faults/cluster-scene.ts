import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type CacheSettings, GenerationalCache, integer, type Scope } from '../../lib/index.js';
import { keyPrefix, partitionOf } from '../../lib/model/key.js';
import { Partitions } from '../../lib/ports/partitions.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { Quarantine } from '../../lib/write/quarantine.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import type { RedisCluster, RedisNode } from '../support/redis-cluster.js';
import { uniqueName } from '../support/redis.js';
import { Promises, type Read } from './promises.js';

const ITEMS = 12;
/** A request that takes this long hangs. */
const HANG_MS = 5_000;
/** Longest time of a load, in ms: it reads at its beginning, so that a slow one holds an old version. */
const LOAD_MS = 8;

export interface Traffic {
  /** Which bumps writers make: of all levels unless told. */
  readonly writes?: 'all' | 'scopes' | 'global' | 'none';
}

export type ClusterProcess = ReturnType<ClusterScene['process']>;

/**
 * Processes that read and write the versions of some items by a cache on a Redis Cluster, while a spec does harm to it.
 * The items' source is the spec's own memory, which commits at once: what reads may not be older than is the bumps' doing
 * alone.
 */
export class ClusterScene {
  readonly name = uniqueName();
  readonly items = Array.from({ length: ITEMS }, (_, item) => item);
  readonly promises = new Promises();
  readonly reads: Read[] = [];
  readonly partitions: number;
  readonly #cluster: RedisCluster;
  readonly #versions = this.items.map(() => 1);
  readonly #processes: ClusterProcess[] = [];
  #failedBumps = 0;

  constructor(cluster: RedisCluster, partitions: number) {
    this.#cluster = cluster;
    this.partitions = partitions;
    for (let i = 0; i < 3; i++) this.#processes.push(this.process());
  }

  /** Bumps that were rejected so far. Each was made again until it succeeded. */
  get failedBumps(): number {
    return this.#failedBumps;
  }

  /** The prefix of the keys of an item, which has its slot. */
  prefixOf(item: number): string {
    return keyPrefix(this.name, partitionOf(`item=${item}`, this.partitions), this.partitions);
  }

  owner(item: number): Promise<RedisNode> {
    return this.#cluster.owner(this.prefixOf(item));
  }

  /** The items whose slots a node owns, and the others. */
  async split(node: RedisNode): Promise<[own: number[], others: number[]]> {
    const owners = await Promise.all(this.items.map((item) => this.owner(item)));
    const [own, others] = [true, false].map((isOwn) => this.items.filter((item) => (owners[item] === node) === isOwn));
    return [own!, others!];
  }

  /** The items for which a process gets no answer from the store at the moment. */
  async unanswered({ own }: ClusterProcess): Promise<number[]> {
    const looked = await Promise.all(this.items.map((item) => own.lookup({ item })));
    return this.items.filter((item) => {
      const { outcome, reason } = looked[item] as { outcome: string; reason?: string };
      return outcome === 'bypass' && (reason === 'store_failure' || reason === 'breaker_open');
    });
  }

  /** Reads each item in a process. `judge` judges these reads too. */
  async readEach({ own }: ClusterProcess): Promise<void> {
    for (const item of this.items) {
      const beganMs = performance.now();
      const version = (await own.fetch({ item }))!;
      this.reads.push({ item, version, beganMs, tookMs: performance.now() - beganMs });
    }
  }

  /** One more process. */
  process(options?: Parameters<RedisCluster['client']>[0], settings: Partial<CacheSettings> = {}) {
    const store = redisStore(this.#cluster.client(options), { partitions: this.partitions });
    const cache = new GenerationalCache({
      ...{ name: this.name, store, ttlMs: 600_000, readDeadlineMs: 300, bumpDeadlineMs: 500, breakerRetryMs: 100 },
      ...settings,
    });
    lend({ what: `a cache of ${this.name}`, close: () => cache.close() });
    const namespace = cache.namespace('item', integer());
    const next = (item: number) => (item + 1) % ITEMS;
    const entry = (name: string, of: (item: number) => number, dependsOn?: (ids: { item: number }) => Scope[]) =>
      namespace.one<{ item: number; version: number }, number>(name, {
        load: async (ids) => {
          const rows = ids.map((one) => ({ item: Number(one.item), version: this.#versions[of(Number(one.item))]! }));
          await sleep(Math.random() * LOAD_MS);
          return rows;
        },
        by: ({ item }) => ({ item }),
        value: ({ version }) => version,
        ...(dependsOn && { dependsOn: (ids) => dependsOn({ item: Number(ids.item) }) }),
      });
    return {
      ...{ cache, namespace, store, next },
      own: entry('own', (item) => item),
      /** The version of the next item, whose scope lies in another partition. */
      neighbour: entry('neighbour', next, ({ item }) => [namespace.scope({ item: next(item) })]),
    };
  }

  /** Reads and writes in all processes while `work` runs, and for `restMs` after it. */
  async during<T>(work: () => Promise<T>, { writes = 'all' }: Traffic = {}, restMs = 200): Promise<T> {
    const over = new AbortController();
    const traffic = this.#processes.flatMap((process) => [
      this.#read(process, over.signal),
      ...(writes === 'none' ? [] : [this.#write(process, writes, over.signal)]),
    ]);
    const failed = new Promise<never>((_, reject) => {
      for (const one of traffic) one.catch(reject);
    });
    failed.catch(() => {});
    try {
      await sleep(100);
      const result = await Promise.race([work(), failed]);
      await sleep(restMs);
      over.abort();
      await Promise.all(traffic);
      return result;
    } finally {
      // A failure of the work is told, and not that of a bump which it left without a primary.
      over.abort();
      await Promise.allSettled(traffic);
    }
  }

  async #read({ own, neighbour, next }: ClusterProcess, over: AbortSignal): Promise<void> {
    while (!over.aborted) {
      const beganMs = performance.now();
      const note = (item: number, version: number | undefined) =>
        this.reads.push({ item, version: version!, beganMs, tookMs: performance.now() - beganMs });
      const item = Math.floor(Math.random() * ITEMS);
      if (Math.random() < 0.3) {
        const versions = await own.fetchMany(this.items.map((one) => ({ item: one })));
        for (const [i, version] of versions.entries()) note(i, version);
      } else if (Math.random() < 0.5) note(item, await own.fetch({ item }));
      else note(next(item), await neighbour.fetch({ item }));
      await sleep(Math.random() * 6);
    }
  }

  async #write(process: ClusterProcess, writes: 'all' | 'scopes' | 'global', over: AbortSignal): Promise<void> {
    while (!over.aborted) {
      await sleep(Math.random() * 30);
      const item = Math.floor(Math.random() * ITEMS);
      const isGlobal = writes === 'global' || (writes === 'all' && Math.random() < 0.1);
      const kind = Math.random();
      if (!isGlobal && kind < 0.2) await this.#commitStrictly(process, item);
      else {
        const items = isGlobal ? this.items : kind < 0.5 ? [item, (item + 5) % ITEMS] : [item];
        const committed = items.map((one) => [one, ++this.#versions[one]!] as const);
        const bump = () =>
          isGlobal ? process.cache.bump() : process.namespace.bumpMany(items.map((one) => ({ item: one })));
        await this.#untilDone(bump, over);
        for (const [one, version] of committed) this.promises.add(one, version, 'the bump');
      }
    }
  }

  /** A bump that fails is made again, also after the traffic has ended: a promise follows it alone. */
  async #untilDone(bump: () => Promise<unknown>, over: AbortSignal): Promise<void> {
    for (let late = 0; ;) {
      try {
        await bump();
        return;
      } catch (error) {
        this.#failedBumps++;
        if (over.aborted && late++ > 20) throw error;
        await sleep(50);
      }
    }
  }

  /** A strict commit: if its quarantine was kept, no read that began after the commit may be older. */
  async #commitStrictly(process: ClusterProcess, item: number): Promise<void> {
    const path = `item=${item}`;
    const partitions = new Partitions(process.store, this.name);
    const quarantine = new Quarantine({
      ...{ present: async () => partitions, cache: this.name, deadlineMs: 500 },
      ...{ lastsMs: 10_000, setWithinMs: 5_000, onForeign: () => {} },
    });
    try {
      await quarantine.set([path]);
    } catch {
      await quarantine.lift([]).catch(() => {});
      return;
    }
    const version = ++this.#versions[item]!;
    const committedMs = performance.now();
    await sleep(Math.random() * 10);
    try {
      await quarantine.lift([path]);
    } catch {
      // The quarantine lapses, or the plain bump covers it; a degraded commit promises only what its bump does.
      await this.#untilDone(() => process.namespace.bump({ item }), new AbortController().signal);
      this.promises.add(item, version, 'the bump after a failed lift');
      return;
    }
    if (quarantine.kept) this.promises.add(item, version, 'the strict commit', committedMs);
    else this.promises.add(item, version, 'the lift');
  }

  /** Resolves when every entry is a hit in every process, with the present version, and no part of its cache is down. */
  async hitting(): Promise<void> {
    const all = this.items.map((item) => ({ item }));
    for (const { cache, own, neighbour } of this.#processes) {
      await eventually(async () => {
        for (const entry of [own, neighbour]) {
          await entry.fetchMany(all);
          await cache.settled();
          const looked = await Promise.all(all.map((ids) => entry.lookup(ids)));
          const outcomes = looked.map((result) => ('reason' in result ? result.reason : result.outcome));
          expect([...new Set(outcomes)]).to.deep.equal(['hit']);
        }
        const { connection, reads, fills, unbumped } = cache.state;
        expect([connection?.isUp, connection?.unreachable, reads.isUp, fills.isUp, unbumped]).to.deep.equal([
          ...[true, [], true, true, 0],
        ]);
      });
    }
  }

  hits(): number {
    return this.#processes.reduce((sum, { cache }) => sum + cache.statistics.total('hits'), 0);
  }

  /** Judges all reads so far. */
  judge(): void {
    expect(this.promises.judge(this.reads), 'promises').to.be.above(0);
    expect(Math.max(...this.reads.map(({ tookMs }) => tookMs)), 'the longest read, in ms').to.be.below(HANG_MS);
  }
}
