import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { lendRedis } from '../support/redis.js';
import type { OutageTarget } from './outages.js';

const EVICTING = [
  ...['allkeys-lru', 'allkeys-lfu', 'allkeys-random'],
  ...['volatile-lru', 'volatile-lfu', 'volatile-random', 'volatile-ttl'],
];
const POLICIES = [...EVICTING, 'noeviction'];
/** The memory beside what Redis uses at the start, in bytes: enough for the connections of the installations. */
const ROOM = 1 << 20;
/** Values that the other program sets under one policy, at least. */
const VALUES = 20;
const PAUSE_MS = 20;

/**
 * A Redis with little memory that another program fills, under each eviction policy in turn. The other program's values take
 * up to all of the room, so that keys of every kind are evicted, however often they are read.
 */
export class Eviction {
  /** The policies under which a generation was evicted, and an entry. */
  readonly #evicted = { generation: new Set<string>(), entry: new Set<string>() };
  #turn = 0;
  #values = 0;
  #subscriber: Redis | undefined;

  async begin({ server, admin }: OutageTarget): Promise<void> {
    await admin.config('SET', 'notify-keyspace-events', 'Ee');
    this.#subscriber = lendRedis({ url: server.url });
    await this.#subscriber.subscribe('__keyevent@0__:evicted');
    this.#subscriber.on('message', (_channel, key) => {
      if (key.includes('}:g:')) this.#evicted.generation.add(this.#policy);
      if (key.includes('}:e:')) this.#evicted.entry.add(this.#policy);
    });
    const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))![1]);
    await admin.config('SET', 'maxmemory-policy', this.#policy);
    await admin.config('SET', 'maxmemory', used + ROOM);
  }

  get isOver(): boolean {
    return this.#turn === POLICIES.length - 1 && this.#values >= VALUES;
  }

  /** One more value of the other program; and the next policy, when this one has done its harm. */
  async go({ admin }: OutageTarget): Promise<void> {
    // The cube: mostly small values, now and then one for which Redis evicts almost all.
    const value = Buffer.alloc(ROOM * Math.random() ** 3);
    // Without eviction there is no room for it.
    await admin.set(`other:${Math.floor(Math.random() * 1_000)}`, value, 'PX', 600_000).catch(() => {});
    await sleep(PAUSE_MS);
    const isFelt = Object.values(this.#evicted).every((policies) => policies.has(this.#policy));
    if (++this.#values < VALUES || !isFelt) return;
    this.#turn++;
    this.#values = 0;
    await admin.config('SET', 'maxmemory-policy', this.#policy);
  }

  async end({ admin }: OutageTarget): Promise<void> {
    await admin.config('SET', 'maxmemory', 0);
    this.#subscriber?.disconnect();
    for (const policies of Object.values(this.#evicted)) expect([...policies]).to.include.members(EVICTING);
  }

  get #policy(): string {
    return POLICIES[this.#turn]!;
  }
}
