/** A relay that prints its polls, repairs and failures, a line of JSON each. argv: its place and its bounds, as JSON. */
import { Redis } from 'ioredis';
import knex from 'knex';
import { redisStore } from '../../../lib/store/redis/index.js';
import { startRelay } from '../../../lib/knex/index.js';
import type { Place } from '../program.js';
import { SILENT } from '../silent.js';

const { place, boundMs, pollMs } = JSON.parse(process.argv[2]!) as { place: Place; boundMs: number; pollMs: number };
const relay = startRelay({
  cache: place.cache,
  db: knex({
    client: 'pg',
    connection: place.postgres,
    searchPath: [place.schema],
    pool: { min: 0, max: 2 },
    log: SILENT,
  }),
  store: redisStore(new Redis(place.redis, { lazyConnect: true })),
  maxStalenessMs: boundMs,
  pollMs,
});
const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
relay.on('poll', ({ trusted, lagMs }) => tell({ kind: 'poll', trusted, lagMs }));
relay.on('repair', ({ cause }) => tell({ kind: 'repair', cause }));
relay.on('failure', ({ error }) => tell({ kind: 'failure', message: error.message }));
