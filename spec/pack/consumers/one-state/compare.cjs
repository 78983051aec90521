/** Compares what one process required with what it imported, and uses each half with the other's. */
const assert = require('node:assert/strict');

exports.SUBPATHS = ['', '/redis', '/knex', '/testing', '/workflow-engine'];

exports.compare = async (required, imported) => {
  for (const subpath of exports.SUBPATHS) {
    const names = Object.keys(required[subpath]).filter((name) => name !== '__esModule');
    assert.ok(names.length > 0, `gencache${subpath} exports values`);
    assert.deepEqual(Object.keys(imported[subpath]).sort(), names.sort(), `names of gencache${subpath}`);
    for (const name of names) {
      assert.equal(imported[subpath][name], required[subpath][name], `${name} of gencache${subpath}`);
    }
  }
  await use(required, imported);
  await use(imported, required);
  console.log('one state: ok');
};

/** A cache of one half; the store, the clock, the observer and the id kinds of the other. */
async function use(one, other) {
  const clock = other['/testing'].manualClock();
  const store = other[''].memoryStore({ clock });
  const cache = new one[''].GenerationalCache({ name: 'shop', store, clock });
  assert.ok(cache instanceof other[''].GenerationalCache);
  const observed = other['/testing'].observe(cache);
  const customers = cache.namespace('customer', other[''].integer());
  const orders = customers.one('order', {
    load: async () => [],
    by: (row) => ({ customer: row.customer }),
  });
  assert.equal(await orders.fetch({ customer: 42 }), undefined);
  await cache.settled();
  assert.equal(await orders.fetch({ customer: 42 }), undefined);
  assert.equal(cache.statistics.total('absent_hits'), 1, 'both halves have one ABSENT');
  assert.equal(observed.loads, 1);
  await customers.bump({ customer: 42 });
  await assert.rejects(orders.fetch({ customer: 'x' }), other[''].IdError);
  await cache.close();
  await assert.rejects(orders.fetch({ customer: 42 }), other[''].ClosedError);
}
