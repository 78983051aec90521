import { type GenerationKey, generationKey, keyPrefix, partitionName, partitionOf } from '../model/key.js';
import type { PartitionedStore, Store, StorePartition } from './store.js';

/** One partition of a cache's store. */
export interface Partition {
  /** Its number in its layout. */
  readonly index: number;
  /** `17/64`, or `0` for the only one. */
  readonly name: string;
  /** The prefix of its keys. */
  readonly prefix: string;
  readonly store: StorePartition;
  /**
   * To be called with the keys of each bump, quarantine and lift by this process, when its command has ended, successful or
   * not, and before its promise settles (docs/protocol.md, rule 14). undefined unless this process tracks generations.
   */
  changed?: ((keys: readonly GenerationKey[]) => void) | undefined;
}

/** A scope in one partition, by its position in `Partitions.list`. */
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
 *
 * While processes with another number of partitions run, the store has several layouts side by side, and a scope lies in
 * each of them (docs/protocol.md, rule 24). Readers use their own layout alone.
 */
export class Partitions {
  /** Those of this process' own layout, then those of the others. */
  readonly list: readonly Partition[];
  /** Number of partitions of this process' own layout. */
  readonly count: number;
  /** Whether the store has partitions, be it one. */
  readonly isPartitioned: boolean;
  /** The numbers of partitions of the other layouts. */
  readonly others: readonly number[];
  /** True for a store that never holds anything. */
  readonly bypassed: boolean;
  readonly #layouts: readonly Layout[];
  readonly #known: KnownLayouts;

  constructor(
    store: Store | PartitionedStore,
    cache: string,
    others: readonly number[] = [],
    known = new KnownLayouts(store, cache),
  ) {
    this.isPartitioned = 'partition' in store;
    this.bypassed = 'bypassed' in store && (store.bypassed ?? false);
    this.count = 'partition' in store ? store.partitions : 1;
    this.#known = known;
    this.others = others;
    this.#layouts = [this.count, ...others].map((count) => known.layout(count));
    this.list = this.#layouts.flat();
    known.remember(others, this);
  }

  /** Returns these partitions and those of further layouts. A partition is the same object in all that this returns. */
  including(counts: readonly number[]): Partitions {
    const others = [...new Set(counts)].filter((count) => count !== this.count).sort((one, other) => one - other);
    return this.#known.of(others);
  }

  /** The only partition, or the first. */
  get first(): Partition {
    return this.list[0]!;
  }

  /** Returns the number of the partition that a key of this process' own layout lies in. */
  ofKey(key: string): number {
    if (this.count === 1) return 0;
    const end = key.indexOf('}');
    return Number(key.slice(key.lastIndexOf(':', end) + 1, key.lastIndexOf('/', end)));
  }

  /** Returns each scope of these paths, once for each layout; global once for each partition. */
  locate(paths: readonly string[]): LocatedScope[] {
    const [own] = this.#layouts;
    if (this.#layouts.length === 1) return locateIn(own!, 0, paths);
    let first = 0;
    return this.#layouts.flatMap((layout) => {
      const scopes = locateIn(layout, first, paths);
      first += layout.length;
      return scopes;
    });
  }

  /** Returns the scopes of these paths in one partition: global there alone. */
  scopesIn(partition: Partition, paths: readonly string[]): LocatedScope[] {
    const position = this.list.indexOf(partition);
    return paths.map((path) => scopeIn(partition, position, path));
  }

  /** Groups items by their partition, in the order of the partitions' first items. */
  group<T extends { readonly partition: number }>(items: readonly T[]): (readonly [Partition, readonly T[]])[] {
    if (this.list.length === 1) return items.length === 0 ? [] : [[this.first, items]];
    const groups = new Map<number, T[]>();
    for (const item of items) {
      const group = groups.get(item.partition);
      if (group === undefined) groups.set(item.partition, [item]);
      else group.push(item);
    }
    return [...groups].map(([position, group]) => [this.list[position]!, group]);
  }
}

/** The partitions of one number of partitions. */
type Layout = readonly Partition[];

/** The layouts of a cache that this process has met, and their combinations. */
class KnownLayouts {
  readonly #store: Store | PartitionedStore;
  readonly #cache: string;
  readonly #layouts = new Map<number, Layout>();
  readonly #combinations = new Map<string, Partitions>();

  constructor(store: Store | PartitionedStore, cache: string) {
    this.#store = store;
    this.#cache = cache;
  }

  layout(count: number): Layout {
    const known = this.#layouts.get(count) ?? layoutOf(this.#store, this.#cache, count);
    this.#layouts.set(count, known);
    return known;
  }

  of(others: readonly number[]): Partitions {
    return this.#combinations.get(others.join()) ?? new Partitions(this.#store, this.#cache, others, this);
  }

  remember(others: readonly number[], partitions: Partitions): void {
    this.#combinations.set(others.join(), partitions);
  }
}

function layoutOf(store: Store | PartitionedStore, cache: string, count: number): Layout {
  return Array.from({ length: count }, (_, index) => {
    const prefix = keyPrefix(cache, index, count);
    const own = 'partition' in store ? store.partition(prefix) : store;
    return { index, name: partitionName(index, count), prefix, store: own };
  });
}

/** `first`: the position of the layout's first partition. */
function locateIn(layout: Layout, first: number, paths: readonly string[]): LocatedScope[] {
  const { length } = layout;
  return paths.flatMap((path) => {
    if (path === '' && length > 1) return layout.map((partition, i) => scopeIn(partition, first + i, path));
    const index = partitionOf(path, length);
    return scopeIn(layout[index]!, first + index, path);
  });
}

function scopeIn({ prefix }: Partition, position: number, path: string): LocatedScope {
  return { path, partition: position, generationKey: generationKey(prefix, path) };
}
