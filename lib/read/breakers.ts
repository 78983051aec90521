import type { Breaker } from './breaker.js';

/** What a lookup asks before it is sent, and tells its result. */
export type LookupBreaker = Pick<Breaker, 'admits' | 'succeeded' | 'failed'>;

interface Server {
  /** As the store has it. */
  readonly server: object | undefined;
  readonly breaker: Breaker;
}

/**
 * The breakers of a cache for calls of one kind: one for each server, which a partition shares with the others that the
 * server has at the moment. One for each partition would let a server that does not answer fail several calls of each of
 * its partitions; and then each of them sends a probe once in a while, so that nearly every batch waits for one.
 */
export class Breakers {
  readonly #partitions: readonly { readonly server?: object | undefined }[];
  readonly #make: () => Breaker;
  /** By partition, as it was asked for last. */
  readonly #servers: Server[];

  constructor(partitions: readonly { readonly server?: object | undefined }[], make: () => Breaker) {
    this.#partitions = partitions;
    this.#make = make;
    const unknown = { server: undefined, breaker: make() };
    this.#servers = partitions.map(() => unknown);
  }

  /** The breaker of the server that has a partition at the moment. */
  of(partition: number): Breaker {
    const { server } = this.#partitions[partition]!;
    const known = this.#servers[partition]!;
    return known.server === server ? known.breaker : this.#move(partition, server);
  }

  /** The breakers of a lookup in several partitions: it is sent if each of them admits it. The store tells them its result. */
  together(partitions: readonly number[]): LookupBreaker {
    const breakers = [...new Set(partitions.map((partition) => this.of(partition)))];
    return {
      // Only then is a probe taken, and no breaker waits in vain for the result of one that another has forbidden.
      admits: () => breakers.every(({ isDue }) => isDue) && breakers.every((breaker) => breaker.admits()),
      succeeded() {},
      failed() {},
    };
  }

  /** Admits a probe at once: a server can be reached again. */
  retryNow(): void {
    for (const { breaker } of this.#servers) breaker.retryNow();
  }

  /** A partition has moved. The breaker of a server that has none left says no more that the store fails. */
  #move(partition: number, server: object | undefined): Breaker {
    const before = this.#servers[partition]!;
    const now = this.#servers.find((one) => one.server === server) ?? { server, breaker: this.#make() };
    this.#servers[partition] = now;
    if (!this.#servers.includes(before)) before.breaker.succeeded();
    return now.breaker;
  }
}
