import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { OtherProcess } from './other-process.js';
import type { Claim, Drained, Order, RelayOrders } from './relay-process.js';

/** A relay that runs in a process of its own, as `gencache relay` does, and takes no time of the measuring one's. */
export class OtherRelay {
  readonly #orders: RelayOrders;
  readonly #process = new OtherProcess<Order>(new URL('./relay-process.js', import.meta.url));
  #runs = false;

  constructor(orders: RelayOrders) {
    this.#orders = orders;
  }

  /** Resolves once it relays. */
  async start(): Promise<void> {
    if (this.#runs) return;
    this.#runs = true;
    await this.#process.ask({ start: this.#orders });
  }

  /** Resolves when it has relayed so many events, which were there before, and has stopped. */
  async drain(events: number): Promise<Drained> {
    const drained = (await this.#process.ask({ drain: events, orders: this.#orders })) as Drained;
    await this.#process.ask('stop');
    return drained;
  }

  /** What it claimed since it was last asked. */
  async claims(): Promise<Claim[]> {
    return (await this.#process.ask('claims')) as Claim[];
  }

  /** Lets it finish what waits in `db`, and stops it. */
  async stop(db: Knex): Promise<void> {
    if (!this.#runs) return;
    await emptied(db, this.#orders.cache);
    await this.#process.ask('stop');
    this.#runs = false;
  }

  end(): void {
    this.#process.end();
  }
}

/** Resolves once every event of the cache has been relayed. */
export async function emptied(db: Knex, cache: string): Promise<void> {
  const deadlineMs = performance.now() + EMPTIED_MS;
  while ((await db('gencache_outbox').select(1).where({ cache }).limit(1)).length > 0) {
    if (performance.now() > deadlineMs)
      throw new Error(`A relay empties its outbox: this one has not in ${EMPTIED_MS} ms.`);
    await sleep(10);
  }
}
const EMPTIED_MS = 120_000;
