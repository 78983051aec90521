import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { type NothingLeft, watchListeners } from './leftovers.js';
import { Promises, type Read } from './promises.js';

/** Longest pause of a reader between two reads, in ms: leaves the servers some of two cores. */
const REST_MS = 20;
/** Five times the default: five installations share one event loop, which is busy for longer than a read of one may take. */
const READ_DEADLINE_MS = 500;
/** A request that takes this long hangs. */
const HANG_MS = 20 * READ_DEADLINE_MS;

interface ApplicationOptions {
  readonly name: string;
  readonly db: Knex;
  readonly url: string;
  readonly items: number;
  readonly loadsMax: number;
  readonly bumpDeadlineMs: number;
  readonly boundMs: number | undefined;
}

/** One process of an application: a cache of versioned items, and readers that note the answers. */
export class Application {
  readonly cache: GenerationalCache<{ db: Knex }, Knex.Transaction>;
  readonly items;
  readonly promises = new Promises();
  /** Reads so far. */
  readonly reads: Read[] = [];
  readonly #value;
  readonly #options: ApplicationOptions;
  readonly #client: Redis;
  readonly #nothingLeft: NothingLeft;
  #running = 0;
  #runningMax = 0;
  #closed = false;

  constructor(options: ApplicationOptions) {
    const { name, db, url, loadsMax, bumpDeadlineMs, boundMs } = options;
    this.#options = options;
    this.#client = new Redis(url, { lazyConnect: true });
    this.#nothingLeft = watchListeners(this.#client, db);
    this.cache = new GenerationalCache({
      ...{ name, store: redisStore(this.#client), source: knexSource(db), loadsMax, bumpDeadlineMs },
      readDeadlineMs: READ_DEADLINE_MS,
      ...(boundMs !== undefined && { maxStalenessMs: boundMs }),
    });
    this.items = this.cache.namespace('item', integer());
    this.#value = this.items.one<{ id: number; version: number }, number>('version', {
      load: async (ids, context) => {
        this.#runningMax = Math.max(this.#runningMax, ++this.#running);
        const query = context.db<{ id: number; version: number }>('item');
        return query.whereIn('id', ids.map(({ item }) => item)).finally(() => this.#running--); // prettier-ignore
      },
      by: (row) => ({ item: row.id }),
      value: (row) => row.version,
    });
    lend({ what: `the cache ${name}`, close: () => (this.#closed ? undefined : this.cache.close()) });
  }

  get hits(): number {
    return this.cache.statistics.total('hits');
  }

  /** Reads random items until `over`. Rejects as a read does. */
  async read(over: AbortSignal): Promise<void> {
    while (!over.aborted) {
      const item = Math.floor(Math.random() * this.#options.items);
      const beganMs = performance.now();
      const version = await this.#value.fetch({ item });
      this.reads.push({ item, version: version!, beganMs, tookMs: performance.now() - beganMs });
      await sleep(Math.random() * REST_MS);
    }
  }

  /** The version of each item, read now. */
  readAll(): Promise<(number | undefined)[]> {
    return this.#value.fetchMany(this.#ids);
  }

  /** Resolves when every item is a hit, and all that hits need is up. */
  hitting(): Promise<void> {
    return eventually(async () => {
      await this.readAll();
      const looked = await Promise.all(this.#ids.map((ids) => this.#value.lookup(ids)));
      expect([...new Set(looked.map(({ outcome }) => outcome))]).to.deep.equal(['hit']);
      const { connection, reads, freshness } = this.cache.state;
      expect([connection?.isUp, reads.isUp, freshness?.isUp]).to.not.include(false);
    });
  }

  /** Judges all reads so far. */
  judge(): void {
    expect(this.promises.judge(this.reads), 'promises').to.be.above(0);
    expect(Math.max(...this.reads.map(({ tookMs }) => tookMs)), 'the longest read, in ms').to.be.below(HANG_MS);
    expect(this.#runningMax, 'loads at once').to.be.within(1, this.#options.loadsMax);
  }

  /** Closes the cache, and asserts that it left no load, connection or listener. */
  async close(): Promise<void> {
    await this.cache.close();
    this.#closed = true;
    expect(this.cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
    await this.#nothingLeft();
    this.#client.disconnect();
  }

  get #ids(): { item: number }[] {
    return Array.from({ length: this.#options.items }, (_, item) => ({ item }));
  }
}
