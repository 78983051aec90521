/**
 * A writer: one transaction that changes an item and records bumps. argv: the change and the place, as JSON.
 *
 * Prints the result of `transaction`, or the code and message of its error, as a line of JSON, and runs until it is
 * killed.
 */
import { Redis } from 'ioredis';
import knex from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { knexSource } from '../../../lib/knex/index.js';
import type { Place } from '../program.js';
import { SILENT } from '../silent.js';

const { place, item, version, bumps, strict } = JSON.parse(process.argv[2]!) as {
  place: Place;
  item: number;
  version: number;
  bumps: number[];
  strict: boolean;
};
const db = knex({
  client: 'pg',
  connection: place.postgres,
  searchPath: [place.schema],
  pool: { min: 0, max: 2 },
  log: SILENT,
});
const redis = new Redis(place.redis, { lazyConnect: true });
const cache = new GenerationalCache({ name: place.cache, store: redisStore(redis), source: knexSource(db) });
const items = cache.namespace('item', integer());

setInterval(() => {}, 60_000);
let line: unknown;
try {
  line = await cache.transaction(
    async (trx) => {
      await trx('item').where({ id: item }).update({ version });
      await items.bumpMany(bumps.map((bumped) => ({ item: bumped })), { trx }); // prettier-ignore
    },
    { strict },
  );
} catch (error) {
  line = { code: (error as { code?: string }).code, message: (error as Error).message };
}
process.stdout.write(`${JSON.stringify(line)}\n`);
