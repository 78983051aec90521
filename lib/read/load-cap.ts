/**
 * The cap on the source: how many loads run at once, for the cache and for each entry.
 *
 * A load counts until its loader settles, also after its callers have given up on it: the source still works on it. One that
 * never settles keeps its place, so that a source that hangs gets no more loads than the cap.
 */
import { clearTimeout, setTimeout } from '../async/scheduling.js';
import { SourceOverloadError } from '../errors/errors.js';
import type { EntryDefinition } from '../model/entry-definition.js';

export interface LoadLimits {
  /** Most loads of the cache at once. */
  readonly loadsMax: number;
  /** Most entries that wait for room. */
  readonly loadQueueMax: number;
  /** Longest time that an entry waits for its load to begin, in ms. */
  readonly loadQueueTimeoutMs: number;
}

/** A load under way. */
export interface BegunLoad<T> {
  readonly answer: Promise<T>;
  /** Settles when the loader does; the answer may come earlier, at a timeout. */
  readonly settled: Promise<unknown>;
}

interface Waiter {
  readonly definition: EntryDefinition;
  readonly go: () => void;
}

export class LoadCap {
  readonly limits: LoadLimits;
  readonly #runningOf = new Map<EntryDefinition, number>();
  readonly #waiters = new Set<Waiter>();
  #running = 0;
  #waitersFirst = false;
  #onRoom: () => void = () => {};

  constructor(limits: LoadLimits) {
    this.limits = limits;
  }

  /** Number of loads whose loader has not settled. */
  get running(): number {
    return this.#running;
  }

  /** Calls `listener` whenever a load has ended. One listener. */
  onRoom(listener: () => void): void {
    this.#onRoom = listener;
  }

  hasRoom(definition: EntryDefinition): boolean {
    return this.#running < this.limits.loadsMax && (this.#runningOf.get(definition) ?? 0) < definition.loadsMax;
  }

  /** Counts a load until its loader settles. The caller has asked `hasRoom`. */
  take(definition: EntryDefinition, loading: Promise<unknown>): void {
    this.#count(definition);
    this.#freeAfter(definition, loading);
  }

  /**
   * Begins a load as soon as there is room, in turns with loads that are queued, and returns its answer. Rejects with
   * SourceOverloadError if it waits for too long.
   */
  async run<T>(definition: EntryDefinition, begin: () => BegunLoad<T>): Promise<T> {
    if (this.hasRoom(definition)) this.#count(definition);
    else await this.#room(definition);
    const { answer, settled } = begin();
    this.#freeAfter(definition, settled);
    return answer;
  }

  /** Waits for room, and takes it. */
  #room(definition: EntryDefinition): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        definition,
        go: () => {
          clearTimeout(timer);
          this.#waiters.delete(waiter);
          this.#count(definition);
          resolve();
        },
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(this.overload(definition, 'time'));
      }, this.limits.loadQueueTimeoutMs).unref();
      this.#waiters.add(waiter);
    });
  }

  /** The error of a load that does not begin: it waited for too long (`time`), or too many wait (`length`). */
  overload({ cache, name, loadsMax }: EntryDefinition, limit: 'time' | 'length'): SourceOverloadError {
    const { limits } = this;
    const reason =
      limit === 'time'
        ? `did not begin within ${limits.loadQueueTimeoutMs} ms (loadQueueTimeoutMs)`
        : `can't begin, and ${limits.loadQueueMax} entries wait already (loadQueueMax)`;
    return new SourceOverloadError(
      `A load of entry "${name}" ${reason}, since ${this.#running} loads of cache "${cache}" run at once ` +
        `(loadsMax is ${limits.loadsMax}, that of the entry ${loadsMax}). Look for slow queries; raise loadsMax if the ` +
        'source and its pool have room, or send less load.',
    );
  }

  #count(definition: EntryDefinition): void {
    this.#running++;
    this.#runningOf.set(definition, (this.#runningOf.get(definition) ?? 0) + 1);
  }

  #freeAfter(definition: EntryDefinition, loading: Promise<unknown>): void {
    const free = () => this.#free(definition);
    loading.then(free, free);
  }

  #free(definition: EntryDefinition): void {
    this.#running--;
    const running = this.#runningOf.get(definition)! - 1;
    if (running > 0) this.#runningOf.set(definition, running);
    else this.#runningOf.delete(definition);
    // Retries and queued loads take turns.
    this.#waitersFirst = !this.#waitersFirst;
    if (this.#waitersFirst) this.#wakeWaiters();
    this.#onRoom();
    this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    for (const waiter of this.#waiters) if (this.hasRoom(waiter.definition)) waiter.go();
  }
}
