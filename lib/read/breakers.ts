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
  /** By partition, as of the last change that was noticed. */
  #servers: readonly Server[];

  constructor(partitions: readonly { readonly server?: object | undefined }[], make: () => Breaker) {
    this.#partitions = partitions;
    this.#make = make;
    const unknown = { server: undefined, breaker: make() };
    this.#servers = partitions.map(() => unknown);
  }

  /** The breaker of the server that has a partition at the moment. */
  of(partition: number): Breaker {
    if (this.#servers[partition]!.server !== this.#partitions[partition]!.server) this.#follow();
    return this.#servers[partition]!.breaker;
  }

  /** The breakers of a lookup in several partitions: it is sent if each of them admits it. The store tells them its result. */
  together(partitions: readonly number[]): LookupBreaker {
    const breakers = [...new Set(partitions.map((partition) => this.of(partition)))];
    return {
      // No probe is taken from one breaker while another forbids it.
      admits: () => breakers.every(({ isDue }) => isDue) && breakers.every((breaker) => breaker.admits()),
      succeeded() {},
      failed() {},
    };
  }

  /** Admits a probe at once: a server can be reached again. */
  retryNow(): void {
    this.#follow();
    for (const { breaker } of this.#servers) breaker.retryNow();
  }

  /** Partitions have moved. All are looked at: one that is not read would keep the breaker of a server that is gone open. */
  #follow(): void {
    const before = new Set(this.#servers);
    const known = [...before];
    this.#servers = this.#partitions.map(({ server }) => {
      let found = known.find((one) => one.server === server);
      if (found === undefined) known.push((found = { server, breaker: this.#make() }));
      return found;
    });
    for (const server of before) if (!this.#servers.includes(server)) server.breaker.retire();
  }
}
