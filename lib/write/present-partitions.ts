import type { Partitions } from '../ports/partitions.js';
import type { Source } from '../ports/source.js';
import type { PartitionedStore, Store } from '../ports/store.js';

interface PresentPartitionsOptions {
  readonly partitions: Partitions;
  readonly store: Store | PartitionedStore;
  readonly source: Source<object, unknown>;
  readonly cache: string;
}

/**
 * Returns what a bump calls after the commit (docs/protocol.md, rule 24): the partitions of every layout that processes of this
 * cache have, by the registry as it is then, and by the store's own option. One query on a store with partitions.
 */
export function presentPartitions({
  partitions,
  store,
  source,
  cache,
}: PresentPartitionsOptions): () => Promise<Partitions> {
  if (!('partitions' in store)) return () => Promise.resolve(partitions);
  const also = store.alsoPartitions ?? [];
  const { layouts } = source;
  return async () => partitions.including([...also, ...((await layouts?.read(cache)) ?? [])]);
}
