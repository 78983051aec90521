import { GenerationalCache, IdError, integer, memoryStore } from 'gencache';
import { manualClock, observe } from 'gencache/testing';

interface Visits {
  readonly customer: number | string;
  readonly at: Date;
}

async function visit(): Promise<void> {
  const clock = manualClock();
  const cache = new GenerationalCache({ name: 'shop', store: memoryStore({ clock }), clock, ttlMs: 1_000 });
  const observed = observe(cache);
  const visits = cache.namespace('customer', integer()).one('visits', {
    load: async (ids): Promise<Visits[]> => ids.map(({ customer }) => ({ customer, at: new Date(5) })),
    by: ({ customer }) => ({ customer }),
    value: ({ customer, at }) => new Map([[customer, at]]),
  });
  await visits.fetch({ customer: 42 });
  await cache.settled();
  const hit: Map<number | string, Date> | undefined = await visits.fetch({ customer: 42 });
  expect(observed.loads).toBe(1);
  expect(hit).toBeInstanceOf(Map);
  expect(hit?.get(42)).toBeInstanceOf(Date);
  expect(hit).toEqual(new Map([[42, new Date(5)]]));
  clock.advance(1_001);
  await visits.fetch({ customer: 42 });
  expect(observed.loads).toBe(2);
  // @ts-expect-error: a customer's id is no Date.
  await expect(visits.fetch({ customer: new Date() })).rejects.toBeInstanceOf(IdError);
  await cache.close();
}

test('a cache works', visit);

test('a cache works under fake timers', async () => {
  jest.useFakeTimers();
  try {
    await visit();
  } finally {
    jest.useRealTimers();
  }
});
