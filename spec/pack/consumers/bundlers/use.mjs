/** Loads, fills, hits a rich value, lets it expire, and closes. */
export async function use({ GenerationalCache, integer, memoryStore, onChangeOf, manualClock, observe }) {
  const clock = manualClock();
  const cache = new GenerationalCache({ name: 'shop', store: memoryStore({ clock }), clock, ttlMs: 1_000 });
  const observed = observe(cache);
  const visits = cache.namespace('customer', integer()).one('visits', {
    load: async (ids) => ids.map(({ customer }) => ({ customer })),
    by: ({ customer }) => ({ customer }),
    value: ({ customer }) => new Map([[customer, new Date(5)]]),
  });
  await visits.fetch({ customer: 42 });
  await cache.settled();
  const hit = await visits.fetch({ customer: 42 });
  if (observed.loads !== 1 || hit.get(42).getTime() !== 5) throw new Error(`Expected a hit; loads: ${observed.loads}`);
  clock.advance(1_001);
  await visits.fetch({ customer: 42 });
  if (observed.loads !== 2) throw new Error(`Expected a miss of what expired; loads: ${observed.loads}`);
  if (typeof onChangeOf !== 'function') throw new Error('gencache/knex exports onChangeOf');
  await cache.close();
  console.log('a bundle works');
}
