import type { Deadline } from '../async/deadline.js';
import type { Partitions } from '../ports/partitions.js';
import type { StorePartition } from '../ports/store.js';
import type { Breakers } from './breakers.js';
import type { Freshness } from './freshness.js';

/** Keys of one partition, and their positions among all keys. */
interface Share {
  readonly partition: number;
  readonly keys: Parameters<StorePartition['read']>[0][number][];
  readonly positions: number[];
}

/** The calls of a store that a lookup uses. */
export type LookupStore = Pick<StorePartition, 'read' | 'mint'>;

/**
 * The store of lookups whose scopes lie in several partitions: an entry that depends on scopes below another first id.
 *
 * One command for each partition, all at the same time. They are not atomic together, and need not be: an entry's key
 * contains its whole vector, and each generation of it is read after the reader began. So a bump that returned before is
 * seen, whichever partition took it (docs/protocol.md, rule 25). The parts are as fresh as the least fresh one: each
 * partition's freshness key vouches for its own generations alone (docs/protocol.md, rules 9 and 25).
 *
 * A copy of the other scopes' generations in each partition was considered. Then a program that bumps a scope must know whether
 * entries of other trees depend on it: relays, triggers and other releases do not, and a registry would have to be read
 * after each commit.
 */
export class SplitStore implements LookupStore {
  readonly #partitions: Partitions;
  readonly #home: number;
  readonly #freshness: readonly Freshness[] | undefined;
  readonly #breakers: Breakers;
  readonly #nowMs: () => number;

  /** `home`: the partition of the entries. `freshness`: by partition; undefined for a cache without a bound. */
  constructor(
    partitions: Partitions,
    home: number,
    freshness: readonly Freshness[] | undefined,
    breakers: Breakers,
    clock: { nowMs(): number },
  ) {
    this.#partitions = partitions;
    this.#home = home;
    this.#freshness = freshness;
    this.#breakers = breakers;
    this.#nowMs = () => clock.nowMs();
  }

  async read(keys: Parameters<StorePartition['read']>[0], deadline: Deadline): Promise<(Buffer | null)[]> {
    const sentAtMs = this.#nowMs();
    const replies: (Buffer | null)[] = [];
    let isFresh = true;
    const reading = this.#shares(keys).map(async ({ partition, keys: own, positions }) => {
      const freshness = partition === this.#home ? undefined : this.#freshness?.[partition];
      if (freshness !== undefined) own.push(freshness.key);
      const found = await this.#ask(partition, own, deadline);
      for (const [i, position] of positions.entries()) replies[position] = found[i]!;
      if (freshness !== undefined && !freshness.check(found[positions.length]!, sentAtMs)) isFresh = false;
    });
    await Promise.all(reading);
    // The home's freshness key, which a lookup asks for last, stands for all.
    if (!isFresh) replies[keys.length - 1] = null;
    return replies;
  }

  /** Each server's breaker hears of its own answer: the lookup fails as a whole, whichever server it was. */
  async #ask(partition: number, keys: Share['keys'], deadline: Deadline): Promise<readonly (Buffer | null)[]> {
    const breaker = this.#breakers.of(partition);
    try {
      const found = await this.#partitions.list[partition]!.store.read(keys, deadline);
      breaker.succeeded();
      return found;
    } catch (error) {
      breaker.failed(error as Error);
      throw error;
    }
  }

  async mint(
    ...[keys, token, ttlMs, deadline]: Parameters<StorePartition['mint']>
  ): ReturnType<StorePartition['mint']> {
    const replies: Awaited<ReturnType<StorePartition['mint']>>[number][] = [];
    const minting = this.#shares(keys).map(async ({ partition, keys: own, positions }) => {
      const minted = await this.#partitions.list[partition]!.store.mint(own as typeof keys, token, ttlMs, deadline);
      for (const [i, position] of positions.entries()) replies[position] = minted[i]!;
    });
    await Promise.all(minting);
    return replies;
  }

  #shares(keys: Parameters<StorePartition['read']>[0]): Share[] {
    const shares = new Map<number, Share>();
    for (const [position, key] of keys.entries()) {
      const partition = this.#partitions.ofKey(key);
      let share = shares.get(partition);
      if (share === undefined) shares.set(partition, (share = { partition, keys: [], positions: [] }));
      share.keys.push(key);
      share.positions.push(position);
    }
    return [...shares.values()];
  }
}
