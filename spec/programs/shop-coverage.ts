/** A module for `gencache coverage`: the cache that NAME names, with an entry of a query of two tables. */
import type { Knex } from 'knex';
import { GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import type { KnexContext } from '../../lib/knex/index.js';

export const cache = new GenerationalCache<KnexContext, Knex.Transaction>({
  name: await Promise.resolve(process.env['NAME']!),
  store: memoryStore(),
});

cache.namespace('customer', integer()).list('orders', {
  load: (ids, { db }) =>
    db('shop_order')
      .join('product', 'product.id', 'shop_order.product_id')
      .whereIn(
        'customer_id',
        ids.map(({ customer }) => customer),
      )
      .select<{ customer_id: number; name: string }[]>('customer_id', 'name', db.raw('current_date as today')),
  by: (row) => ({ customer: row.customer_id }),
});

export const samples = { customer: 42 };
