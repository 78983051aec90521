/** The shop, an outbox, triggers on its tables, and a relay (step 3). */
import { onChangeOf, startRelay } from 'gencache/knex';
import { redisStore } from 'gencache/redis';
import { db, end as endOfShop, orders, redis } from './outbox.js';

export * from './outbox.js';

await onChangeOf(db, 'shop_order', { cache: 'shop' }).bump({ customer: 'customer_id' }).install();

export const relay = startRelay({ cache: 'shop', db, store: redisStore(redis) });

// A relay that is new bumps everything once.
while (relay.status.repairs === 0) await new Promise((resolve) => setTimeout(resolve, 10));

/** Resolves once the customer's orders are these: a relay bumps within its lag. */
export async function untilOrders(customer: number, items: readonly string[]): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (JSON.stringify(await orders.fetch({ customer })) === JSON.stringify(items)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`The orders of ${customer} did not become ${items.join()} within 5 s`);
}

export async function end(): Promise<void> {
  await relay.stop();
  await endOfShop();
}
