import { setImmediate } from 'node:timers/promises';
import { type CacheSettings, GenerationalCache, integer, type Store } from '../../lib/index.js';
import { deferred, type Deferred } from '../support/deferred.js';
import { lend } from '../support/lenders.js';

/** The database of all processes: the committed version of each item, 0 before the first commit. */
export class Database {
  readonly #versions = new Map<number, number>();

  read(item: number): number {
    return this.#versions.get(item) ?? 0;
  }

  /** Commits the next version, and returns it. */
  commit(item: number): number {
    const version = this.read(item) + 1;
    this.#versions.set(item, version);
    return version;
  }
}

/** A read, taken step by step. It has its value after its steps, and those of a load that it joined. */
export interface SteppedRead {
  /** Runs until the loader is about to read the database; a hit runs to its answer. */
  lookup(): Promise<void>;
  /** The first step of `lookup`: to the store's answer of the first command, which has yet to arrive. Returns whether there is one. */
  ask(): Promise<boolean>;
  /** The second step of `lookup`: the answer arrives. */
  reply(): Promise<void>;
  /** Lets the loader read the database. */
  load(): Promise<void>;
  /** Lets the loader return, and waits for the answer of the read and of its fill. */
  fill(): Promise<void>;
  value(): Promise<number | undefined>;
}

/** One process: a cache of its own, whose loader is held open before and after it reads the database. */
export class Process {
  readonly cache: GenerationalCache;
  /** Whether loads wait for the steps of a `SteppedRead`. */
  held = true;
  readonly #items;
  readonly #value;
  readonly #loads: HeldLoad[] = [];
  readonly #store: TrackedStore;

  constructor(name: string, store: Store, database: Database, options: Pick<CacheSettings, 'local'> = {}) {
    this.#store = new TrackedStore(store);
    this.cache = new GenerationalCache({
      ...{ name, store: this.#store.store },
      ...options,
      ...{ readDeadlineMs: 10_000, fillDeadlineMs: 10_000, bumpDeadlineMs: 10_000 },
      // A process that waits for the held load of another one would take no further step.
      leases: false,
    });
    lend({ what: `a process of ${name}`, close: () => this.cache.close() });
    this.#items = this.cache.namespace('item', integer());
    this.#value = this.#items.one('value', {
      load: async (ids) => {
        const load = { reads: deferred(), returns: deferred() };
        if (this.held) {
          this.#loads.push(load);
          await load.reads.promise;
        }
        const rows = ids.map(({ item }) => ({ item, version: database.read(Number(item)) }));
        if (this.held) await load.returns.promise;
        return rows;
      },
      by: ({ item }) => ({ item }),
      value: ({ version }) => version,
    });
  }

  /** A read in one step, with its fill. */
  async read(item: number): Promise<number | undefined> {
    this.held = false;
    try {
      const version = await this.#value.fetch({ item });
      await this.#store.quiet();
      return version;
    } finally {
      this.held = true;
    }
  }

  stepwise(item: number): SteppedRead {
    let answer: Promise<number | undefined>;
    let load: HeldLoad | undefined;
    let held: Deferred<void> | undefined;
    const goOn = async (begin: () => void) => {
      const before = this.#loads.length;
      begin();
      await this.#store.quiet();
      load = this.#loads[before]; // undefined for a hit, and for a read that joined a load under way
    };
    const fetch = () => void (answer = this.#value.fetch({ item }));
    return {
      lookup: () => goOn(fetch),
      ask: async () => {
        const reply = (this.#store.held = deferred());
        await goOn(fetch);
        if (this.#store.held !== reply) held = reply;
        this.#store.held = undefined;
        return held !== undefined;
      },
      reply: async () => {
        if (held !== undefined) await goOn(held.resolve);
      },
      load: async () => {
        load?.reads.resolve();
        await this.#store.quiet();
      },
      fill: async () => {
        load?.returns.resolve();
        await this.#store.quiet();
      },
      value: () => answer,
    };
  }

  /** What the process answers by itself; undefined if it would ask the store. */
  answers(item: number): number | undefined {
    return this.#value.peek({ item });
  }

  bump(item: number): Promise<void> {
    return this.#items.bump({ item });
  }
}

/** A load that is held before it reads the database, and before it returns. */
interface HeldLoad {
  readonly reads: Deferred<void>;
  readonly returns: Deferred<void>;
}

/** A store that keeps track of its unanswered calls. */
class TrackedStore {
  readonly store: Store;
  /** Holds back the answer of the next read. */
  held: Deferred<void> | undefined;
  readonly #unanswered = new Set<Promise<unknown>>();

  constructor(store: Store) {
    const noted = <T>(answer: Promise<T>): Promise<T> => {
      const done = () => this.#unanswered.delete(answer);
      this.#unanswered.add(answer);
      answer.then(done, done);
      return answer;
    };
    this.store = {
      name: store.name,
      get incarnation() {
        return store.incarnation;
      },
      listen: (listener) => store.listen?.(listener),
      read: (...args) => {
        const { held } = this;
        this.held = undefined;
        const answer = noted(store.read(...args));
        return held === undefined ? answer : held.promise.then(() => answer);
      },
      mint: (...args) => noted(store.mint(...args)),
      bump: (...args) => noted(store.bump(...args)),
      claim: (...args) => noted(store.claim(...args)),
      renewLeases: (...args) => noted(store.renewLeases(...args)),
      failLeases: (...args) => noted(store.failLeases(...args)),
      fill: (...args) => noted(store.fill(...args)),
      delete: (...args) => noted(store.delete(...args)),
      quarantine: (...args) => noted(store.quarantine(...args)),
      lift: (...args) => noted(store.lift(...args)),
      timeMs: (...args) => noted(store.timeMs(...args)),
      renew: (...args) => noted(store.renew(...args)),
      repair: (...args) => noted(store.repair(...args)),
      readMark: (...args) => noted(store.readMark(...args)),
      ...(store.track && { track: (...args) => store.track!(...args) }),
      close: () => store.close(),
    };
  }

  /** Resolves when the process waits for its held loads only. */
  async quiet(): Promise<void> {
    // Turns end, and replies are handled, before the next check phase of the event loop.
    do await setImmediate();
    while (await this.#answered());
  }

  async #answered(): Promise<boolean> {
    if (this.#unanswered.size === 0) return false;
    await Promise.allSettled(this.#unanswered);
    return true;
  }
}
