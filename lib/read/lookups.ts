import type { Deadline } from '../async/deadline.js';
import type { Address } from '../model/entry-definition.js';
import type { EntryLocation } from '../model/entry-location.js';
import type { Generation } from '../model/generation.js';
import type { EntryKey } from '../model/key.js';
import type { Lookup, LookupResult } from './lookup.js';

/** The lookups of one partition. */
export interface PartitionLookups {
  /** Of entries all of whose scopes lie in this partition. */
  readonly own: Lookup;
  /** Of entries of this partition that depend on scopes in others. */
  readonly split: Lookup;
}

/** Addresses that one lookup answers, and their positions among all. */
export interface LookupShare {
  readonly lookup: Lookup;
  /** The partitions that the lookup asks, the entries' own first. */
  readonly partitions: readonly number[];
  readonly addresses: readonly Address[];
  readonly positions: readonly number[];
}

/** The lookups of a cache, by partition. */
export class Lookups {
  /** The lookup of a cache with one partition; undefined for several. */
  readonly only: Lookup | undefined;
  readonly #byPartition: readonly PartitionLookups[];

  constructor(byPartition: readonly PartitionLookups[]) {
    this.#byPartition = byPartition;
    this.only = byPartition.length === 1 ? byPartition[0]!.own : undefined;
  }

  /** Splits addresses by the partitions that their scopes lie in: one share for each combination. */
  shares(addresses: readonly Address[]): LookupShare[] {
    // The usual read: it needs no grouping.
    if (addresses.length === 1) {
      const partitions = partitionsOf(addresses[0]!);
      return [{ lookup: this.#of(partitions), partitions, addresses, positions: [0] }];
    }
    const shares = new Map<string, { partitions: readonly number[]; addresses: Address[]; positions: number[] }>();
    for (const [position, address] of addresses.entries()) {
      const partitions = partitionsOf(address);
      const key = partitions.join();
      let share = shares.get(key);
      if (share === undefined) shares.set(key, (share = { partitions, addresses: [], positions: [] }));
      share.addresses.push(address);
      share.positions.push(position);
    }
    return [...shares.values()].map((share) => ({ ...share, lookup: this.#of(share.partitions) }));
  }

  /** Looks up `addresses: [n] -> [n]`. Rejects as the first partition that fails does. */
  async read(addresses: readonly Address[], deadline: Deadline): Promise<readonly LookupResult[]> {
    if (this.only !== undefined) return this.only.read(addresses, deadline);
    const results: LookupResult[] = [];
    const reading = this.shares(addresses).map(async ({ lookup, addresses: own, positions }) => {
      const looked = await lookup.read(own, deadline);
      for (const [i, position] of positions.entries()) results[position] = looked[i]!;
    });
    await Promise.all(reading);
    return results;
  }

  /** Returns the key of the entry under the present generations; undefined if one is missing. Never mints. */
  locate(address: Address, deadline: Deadline): Promise<EntryKey | undefined> {
    return this.#of(partitionsOf(address)).locate(address, deadline);
  }

  /** Returns the location of an address's entry under these generations of its scopes. */
  locationOf(address: Pick<Address, 'scope' | 'entryPath'>, generations: readonly Generation[]): EntryLocation {
    return this.#byPartition[address.scope.partition]!.own.locationOf(address, generations);
  }

  #of(partitions: readonly number[]): Lookup {
    const { own, split } = this.#byPartition[partitions[0]!]!;
    return partitions.length === 1 ? own : split;
  }
}

/** The partitions of an address's scopes, the entry's own first. */
export function partitionsOf({ scope, scopes }: Address): readonly number[] {
  const partitions = [scope.partition];
  for (const { partition } of scopes) if (!partitions.includes(partition)) partitions.push(partition);
  return partitions;
}
