/**
 * Loads, fills, hits, caches a hit inside another entry, bumps and closes. Values are of kinds that a realm has its own of;
 * `expect` and the classes are those of the test's realm.
 */
exports.scenario = async ({ GenerationalCache, integer, memoryStore }, expect) => {
  const cache = new GenerationalCache({ name: 'shop', store: memoryStore() });
  const customers = cache.namespace('customer', integer());
  let loads = 0;
  const visits = customers.one('visits', {
    load: async (ids) => ids.map(({ customer }) => ({ customer, nth: ++loads })),
    by: ({ customer }) => ({ customer }),
    value: ({ nth }) => new Map([[nth, { at: new Date(nth), of: new Set([nth]), bytes: Buffer.from([nth]) }]]),
  });
  const loaded = await visits.fetch({ customer: 42 });
  await cache.settled();
  const hit = await visits.fetch({ customer: 42 });
  expect(loads).toBe(1);
  expectVisits(hit, expect);
  expect(hit).toStrictEqual(loaded);

  const pages = customers.one('page', {
    load: async (ids) => ids,
    by: ({ customer }) => ({ customer }),
    value: () => ({ title: 'Visits', at: new Date(7), visits: hit }),
  });
  await pages.fetch({ customer: 42 });
  await cache.settled();
  const page = await pages.fetch({ customer: 42 });
  expect(cache.statistics.total('hits')).toBe(2);
  expect(Object.getPrototypeOf(page)).toBe(Object.prototype);
  expect(page.at).toBeInstanceOf(Date);
  expectVisits(page.visits, expect);

  await customers.bump({ customer: 42 });
  await visits.fetch({ customer: 42 });
  expect(loads).toBe(2);
  await cache.close();
};

function expectVisits(visits, expect) {
  expect(visits).toBeInstanceOf(Map);
  const visit = visits.get(1);
  expect(Object.getPrototypeOf(visit)).toBe(Object.prototype);
  expect(visit.at).toBeInstanceOf(Date);
  expect(visit.of).toBeInstanceOf(Set);
  expect(visit.bytes).toBeInstanceOf(Uint8Array);
  expect(visit).toEqual({ at: new Date(1), of: new Set([1]), bytes: Buffer.from([1]) });
}
