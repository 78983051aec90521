// Compiled where no peer is installed: the types of the core name none of theirs.
import { GenerationalCache, integer, memoryStore } from 'gencache';
import { observe } from 'gencache/testing';

const cache = new GenerationalCache({ name: 'core', store: memoryStore() });
const customers = cache.namespace('customer', integer());
export const orders = customers.list('orders', {
  load: async (ids) => ids.map((id) => ({ customer: id.customer })),
  by: (row) => ({ customer: row.customer }),
});
export const observed = observe(cache);
