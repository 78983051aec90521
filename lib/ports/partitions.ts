import { type GenerationKey, generationKey, keyPrefix, partitionName, partitionOf } from '../model/key.js';
import type { PartitionedStore, Store, StorePartition } from './store.js';

/** One partition of a cache's store. */
export interface Partition {
  readonly index: number;
  /** `17/64`, or `0` for the only one. */
  readonly name: string;
  /** The prefix of its keys. */
  readonly prefix: string;
  readonly store: StorePartition;
}

/** A scope in one partition. */
export interface LocatedScope {
  readonly path: string;
  readonly partition: number;
  readonly generationKey: GenerationKey;
}

/**
 * The partitions of one cache, and which scope lies in which of them. A store without partitions is its own only one.
 *
 * The first segment of a path gives its partition, so a program that knows none of the namespaces finds it. Global has a
 * generation in each partition, and a bump of global reaches all of them.
 */
export class Partitions {
  readonly list: readonly Partition[];
  /** True for a store that never holds anything. */
  readonly bypassed: boolean;

  constructor(store: Store | PartitionedStore, cache: string) {
    const count = 'partition' in store ? store.partitions : 1;
    this.bypassed = 'bypassed' in store && (store.bypassed ?? false);
    this.list = Array.from({ length: count }, (_, index) => {
      const prefix = keyPrefix(cache, index, count);
      return {
        index,
        name: partitionName(index, count),
        prefix,
        store: 'partition' in store ? store.partition(prefix) : store,
      };
    });
  }

  get count(): number {
    return this.list.length;
  }

  /** The only partition, or the first. */
  get first(): Partition {
    return this.list[0]!;
  }

  /** Returns the number of the partition that a key lies in. */
  ofKey(key: string): number {
    const { count } = this;
    if (count === 1) return 0;
    const end = key.indexOf('}');
    return Number(key.slice(key.lastIndexOf(':', end) + 1, key.lastIndexOf('/', end)));
  }

  /** Returns each scope of these paths; global once for each partition. */
  locate(paths: readonly string[]): LocatedScope[] {
    const { count } = this;
    const at = (path: string, partition: number): LocatedScope => ({
      ...{ path, partition },
      generationKey: generationKey(this.list[partition]!.prefix, path),
    });
    return paths.flatMap((path) =>
      path === '' && count > 1 ? this.list.map(({ index }) => at(path, index)) : at(path, partitionOf(path, count)),
    );
  }

  /** Returns the scopes of these paths in one partition: global there alone. */
  scopesIn({ index, prefix }: Partition, paths: readonly string[]): LocatedScope[] {
    return paths.map((path) => ({ path, partition: index, generationKey: generationKey(prefix, path) }));
  }

  /** Groups items by their partition, in the order of the partitions' first items. */
  group<T extends { readonly partition: number }>(items: readonly T[]): (readonly [Partition, readonly T[]])[] {
    if (this.count === 1) return items.length === 0 ? [] : [[this.first, items]];
    const groups = new Map<number, T[]>();
    for (const item of items) {
      const group = groups.get(item.partition);
      if (group === undefined) groups.set(item.partition, [item]);
      else group.push(item);
    }
    return [...groups].map(([index, group]) => [this.list[index]!, group]);
  }
}
