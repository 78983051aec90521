import { type CacheSettings, GenerationalCache, integer, type PartitionedStore } from '../../../../lib/index.js';
import type { Knex } from 'knex';
import { knexSource } from '../../../../lib/knex/index.js';
import { lend } from '../../../support/lenders.js';

/** The version of each row of a table `item (id, version)`, cached on a Redis Cluster; closed after the spec. */
export function lendItems(db: Knex, store: PartitionedStore, settings: CacheSettings) {
  const cache = new GenerationalCache({
    ...{ store, source: knexSource(db), ttlMs: 600_000 },
    ...{ readDeadlineMs: 5_000, fillDeadlineMs: 5_000, bumpDeadlineMs: 5_000, ...settings },
  });
  lend({ what: 'a cache', close: () => cache.close() });
  const items = cache.namespace('item', integer());
  const entry = items.one<{ id: number; version: number }, number>('version', {
    load: (ids, context) => context.db('item').whereIn('id', ids.map(({ item }) => item)), // prettier-ignore
    by: ({ id }) => ({ item: id }),
    value: ({ version }) => version,
  });
  return { cache, items, entry, outcome: async (item = 1) => (await entry.lookup({ item })).outcome };
}
