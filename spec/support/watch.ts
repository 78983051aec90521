import type { Knex } from 'knex';
import { lend } from './lenders.js';
import type { Shop } from './shop.js';

/**
 * Reads a price again and again: what PostgreSQL shows, and then what the cache gives, which must not be older.
 * Ends, at the latest, after the spec.
 */
export function watch(shop: Shop, oracle: Knex, item = 1) {
  const stale: { got: number | undefined; least: number }[] = [];
  let reads = 0;
  const ending = new AbortController();
  const running = (async () => {
    while (!ending.signal.aborted) {
      const [{ price: least }] = (await oracle('item').where({ id: item })) as [{ price: number }];
      const got = await shop.price.fetch({ item });
      if (!(got! >= least)) stale.push({ got, least });
      reads++;
    }
  })();
  running.catch(() => {});
  const end = async () => {
    ending.abort();
    await running;
  };
  lend({ what: 'a reader', close: () => end().catch(() => {}) });
  return {
    stale,
    get reads() {
      return reads;
    },
    end,
  };
}
