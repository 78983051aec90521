import { GenerationalCache, type Entry, IdError, integer, memoryStore, text, type Scope } from 'gencache';
import { type KnexContext, knexSource, type Relay, startRelay, withGenerations } from 'gencache/knex';
import { redisStore } from 'gencache/redis';
import { manualClock, observe } from 'gencache/testing';
import { type Workflow, WorkflowCache } from 'gencache/workflow-engine';
import { Redis } from 'ioredis';
import { knex } from 'knex';

interface Order {
  readonly customer: number;
  readonly total: bigint;
}

export async function use(): Promise<void> {
  const db = knex({ client: 'pg' });
  const redis = new Redis({ lazyConnect: true });
  const cache = new GenerationalCache({ name: 'shop', store: redisStore(redis), source: knexSource(db) });
  const customers = cache.namespace('customer', integer());
  const orders = customers.list('orders', {
    load: async (ids, { db }: KnexContext): Promise<Order[]> =>
      db<Order>('orders').whereIn(
        'customer',
        ids.map(({ customer }) => Number(customer)),
      ),
    by: (row) => ({ customer: row.customer }),
    key: {},
  });
  const found: readonly Order[] = await orders.fetch({ customer: 42 });
  const total: bigint | undefined = found[0]?.total;
  const scope: Scope = customers.scope({ customer: 42 });
  await customers.bump({ customer: 42 });
  await db.transaction((trx) => customers.bump({ customer: 42 }, { trx }));
  // @ts-expect-error: the id is called customer.
  await orders.fetch({ client: 42 });
  // @ts-expect-error: a Date is no integer.
  await orders.fetch({ customer: new Date() });
  // @ts-expect-error: the row has no such column.
  found.map((order) => order.price);
  // @ts-expect-error: there is no such export, so the types are no `any`.
  await import('gencache').then(({ missing }) => missing);

  const relay: Relay = startRelay({ cache: 'shop', db, store: redisStore(redis) });
  const lagMs: number = relay.status.lagMs;
  const knexfile: { client: string } = withGenerations({ client: 'pg' }, { cache: 'shop' });
  const clock = manualClock();
  const local = new GenerationalCache({ name: 'local', store: memoryStore({ clock }), clock });
  const loads: number = observe(local).loads;
  const names: Entry<{ name: string }, unknown, unknown> | undefined = undefined;
  const workflows = new WorkflowCache(cache);
  const lists: Workflow[][] = await workflows.getWorkflowsByDetectors([1], null);
  const kind: { readonly name: string } = text();
  console.log(total, scope.path, lagMs, knexfile, loads, names, lists, kind, IdError.name);
}
