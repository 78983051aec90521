import assert from 'node:assert/strict';
import { GenerationalCache, integer, memoryStore } from 'gencache';
import { bypassStore, manualClock, observe } from 'gencache/testing';

const clock = manualClock();
const cache = new GenerationalCache({ name: 'plain', store: memoryStore({ clock }), clock, ttlMs: 1_000 });
const observed = observe(cache);
const customers = cache.namespace('customer', integer());
const orders = customers.list('orders', {
  load: async (ids) => ids.map((id) => ({ customer: id.customer, order: 7 })),
  by: (row) => ({ customer: row.customer }),
});

assert.deepEqual(await orders.fetch({ customer: 42 }), [{ customer: 42, order: 7 }]);
await cache.settled();
await orders.fetch({ customer: 42 });
assert.equal(observed.loads, 1);
clock.advance(1_001);
await orders.fetch({ customer: 42 });
assert.equal(observed.loads, 2);
await assert.rejects(orders.fetch({ customer: 'x' }), { name: 'IdError', code: 'ID' });
await cache.close();

assert.equal(bypassStore().bypassed, true);
console.log('plain JavaScript: ok');
