import type { Knex } from 'knex';
import {
  GenerationalCache,
  integer,
  type LocalOptions,
  type PartitionedStore,
  type Source,
  type Store,
  type TransactionOptions,
} from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import type { KnexContext } from '../../lib/knex/index.js';
import { KnexOutbox } from '../../lib/knex/knex-outbox.js';
import type { WriterLimits } from '../../lib/knex/writer.js';
import { lend } from './lenders.js';
import { lendRedis, uniqueName } from './redis.js';

/** Items and their prices, which only ever rise: who reads a lower one than another did reads something old. */
export async function createItems(db: Knex, prices: Readonly<Record<number, number>> = { 1: 0 }): Promise<void> {
  await db.schema.createTable('item', (table) => {
    table.integer('id').primary();
    table.integer('price').notNullable();
  });
  await db('item').insert(Object.entries(prices).map(([id, price]) => ({ id, price })));
}

export interface ShopOptions {
  readonly name?: string;
  /** The URL of Redis; the shared one unless given. */
  readonly redis?: string;
  /** In place of a store on Redis. */
  readonly store?: Store | PartitionedStore;
  readonly limits?: Partial<WriterLimits>;
  readonly bumpDeadlineMs?: number;
  readonly maxStalenessMs?: number;
  readonly local?: LocalOptions;
  /** A second cache on the source of another. */
  readonly source?: Source<KnexContext, Knex.Transaction>;
}

export type Shop = ReturnType<typeof openShop>;

/** One process of a shop: a cache of prices, filled from `db` and written through it. Closed after the spec. */
export function openShop(db: Knex, options: ShopOptions = {}) {
  const { name = uniqueName(), redis, limits, bumpDeadlineMs = 1_000, maxStalenessMs, local } = options;
  const outbox = new KnexOutbox(db, {}, limits);
  const { source = { context: (trx) => ({ db: trx ?? db }), outbox } } = options;
  const { store = redisStore(lendRedis({ lazyConnect: true, ...(redis !== undefined && { url: redis }) })) } = options;
  const cache = new GenerationalCache({
    ...{ name, source, store, bumpDeadlineMs },
    ...{ readDeadlineMs: 1_000, closeDeadlineMs: 3_000 },
    ...(maxStalenessMs !== undefined && { maxStalenessMs }),
    ...(local !== undefined && { local }),
  });
  lend({ what: `the shop ${name}`, close: () => cache.close() });
  const items = cache.namespace('item', integer());
  const price = items.one('price', {
    load: (ids, { db }) =>
      db<{ id: number; price: number }>('item').whereIn(
        'id',
        ids.map(({ item }) => Number(item)),
      ),
    by: ({ id }) => ({ item: id }),
    value: ({ price }) => price,
  });
  const work = (to: number, item: number) => async (trx: Knex.Transaction) => {
    await trx('item').where({ id: item }).update({ price: to });
    await items.bump({ item }, { trx });
    return `now ${to}`;
  };
  return {
    ...{ name, db, source, cache, items, price },
    /** A change of a price, and its bump, as work of a transaction. */
    change: (to: number, item = 1) => work(to, item),
    /** Sets a price in a transaction of this cache. */
    set: (to: number, how: TransactionOptions<Knex.Transaction> = {}) => cache.transaction(work(to, 1), how),
    /** Fills the entry, and tells its price. */
    async warm(item = 1) {
      const value = await price.fetch({ item });
      await cache.settled();
      return value;
    },
    /** `hit`, `miss`, or why a bypass. */
    async outcome(item = 1) {
      const looked = await price.lookup({ item });
      return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
    },
  };
}

/** The paths of events in the outbox, all caches'. */
export async function recorded(db: Knex): Promise<string[]> {
  return db('gencache_outbox').orderBy(['xid', 'seq']).pluck<string[]>('path');
}
