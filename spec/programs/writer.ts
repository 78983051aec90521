/**
 * A process that writes, to be stopped or killed in between. argv: a JSON of `WriterOptions`.
 *
 * Prints `working` when it is connected to both servers, and its work has changed the price and recorded that. Goes on at
 * SIGUSR2, and then prints the result.
 */
import { once } from 'node:events';
import { lendKnex } from '../support/knexes.js';
import { openShop } from '../support/shop.js';

export interface WriterOptions {
  readonly name: string;
  readonly database: string;
  readonly redis: string;
  readonly price: number;
  readonly strict: boolean;
  readonly quarantineMs: number;
  /** Whether COMMIT waits for a standby. */
  readonly hangs: boolean;
}

const { name, database, redis, price, strict, quarantineMs, hangs } = JSON.parse(process.argv[2]!) as WriterOptions;
const db = lendKnex(database, 'public');
const shop = openShop(db, { name, redis, limits: { quarantineMs }, bumpDeadlineMs: 10_000 });
// A spec that holds the replies of Redis from now on must not hold those of the connection's beginning.
while ((await shop.outcome()) === 'store_failure') continue;
const told = await shop.cache
  .transaction(
    async (trx) => {
      if (hangs) await trx.raw('set local synchronous_commit = on');
      await shop.change(price)(trx);
      const goOn = once(process, 'SIGUSR2');
      process.stdout.write('working\n');
      await goOn;
    },
    { strict },
  )
  .catch((error: Error) => ({ error: error.message }));
process.stdout.write(`${JSON.stringify(told)}\n`);
process.exit(0);
