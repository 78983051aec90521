import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { type CacheSettings, GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import type { Read } from './history.js';

/** Pause between two reads of all items, in ms: enough for all other processes on two cores. */
const REST_MS = 2;
const ROUNDS_ON = 10;

/** One process of an application: reads all items over and over, and notes the answers. */
export class Reader {
  readonly boundMs: number | undefined;
  readonly cache: GenerationalCache<{ db: Knex }, Knex.Transaction>;
  readonly namespace;
  readonly #items: readonly number[];
  readonly #value;
  #reads: Read[] = [];
  #rounds = 0;
  #stopped = false;
  readonly #ended: Promise<void>;

  /** Starts reading; the end of the spec stops it. */
  constructor(options: {
    readonly name: string;
    readonly db: Knex;
    readonly redis: Redis;
    readonly items: readonly number[];
    readonly boundMs?: number | undefined;
    readonly local?: CacheSettings['local'];
  }) {
    this.#items = options.items;
    this.boundMs = options.boundMs;
    this.cache = new GenerationalCache({
      name: options.name,
      store: redisStore(options.redis),
      source: knexSource(options.db),
      ...(options.boundMs === undefined ? {} : { maxStalenessMs: options.boundMs }),
      ...(options.local && { local: options.local }),
    });
    this.namespace = this.cache.namespace('item', integer());
    // Values that a process without a tier filled tell no age, and enter none.
    const name = options.local ? 'aged_version' : 'version';
    this.#value = this.namespace.one<{ id: number; version: number }, number>(name, {
      load: (ids, { db }) => db('item').whereIn('id', ids.map(({ item }) => item)), // prettier-ignore
      by: (row) => ({ item: row.id }),
      value: (row) => row.version,
    });
    this.#ended = this.#run();
    lend({
      what: 'a reader',
      close: async () => {
        this.#stopped = true;
        await this.#ended;
        await this.cache.close();
      },
    });
  }

  get hits(): number {
    return this.cache.statistics.total('hits');
  }

  /** Number of hits without a round trip. */
  get trackedHits(): number {
    return this.cache.statistics.total('tracked_hits');
  }

  /** Reads all items now. */
  async read(): Promise<Read[]> {
    const beganMs = performance.now();
    const versions = await this.#value.fetchMany(this.#items.map((item) => ({ item })));
    const answeredMs = performance.now();
    return versions.map((version, i) => ({ item: this.#items[i]!, version: version!, beganMs, answeredMs }));
  }

  /** The reads since the last call. */
  takeReads(): Read[] {
    const reads = this.#reads;
    this.#reads = [];
    return reads;
  }

  /** Resolves after ten further rounds. */
  async goesOn(): Promise<void> {
    const least = this.#rounds + ROUNDS_ON;
    await eventually(() => expect(this.#rounds).to.be.at.least(least));
  }

  /** Resolves when all items are hits. */
  async hitting(withinMs = 30_000): Promise<void> {
    await eventually(async () => expect(await this.#outcomes()).to.deep.equal(['hit']), { withinMs });
  }

  /** Resolves when all items are bypasses, and not for one late reply: no relay keeps the bound, or the server is gone. */
  async away(withinMs = 30_000): Promise<void> {
    await eventually(
      async () => {
        expect(await this.#outcomes()).to.deep.equal(['bypass']);
        const { connection, freshness } = this.cache.state;
        expect([connection?.isUp, freshness?.isUp]).to.include(false);
      },
      { withinMs },
    );
  }

  async #outcomes(): Promise<string[]> {
    const looked = await Promise.all(this.#items.map((item) => this.#value.lookup({ item })));
    return [...new Set(looked.map(({ outcome }) => outcome))];
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      // While PostgreSQL is down a read may reject.
      this.#reads.push(...(await this.read().catch(() => [])));
      this.#rounds++;
      await sleep(REST_MS);
    }
  }
}
