/** A relay that prints its polls, repairs and failures, a line of JSON each. argv: its place and its options, as JSON. */
import { Redis } from 'ioredis';
import knex from 'knex';
import { redisStore } from '../../../lib/store/redis/index.js';
import { startRelay } from '../../../lib/knex/index.js';
import type { Place } from '../program.js';
import { SILENT } from '../silent.js';

const { place, boundMs, pollMs, backlogMaxMs } = JSON.parse(process.argv[2]!) as {
  readonly place: Place;
  readonly boundMs: number;
  readonly pollMs: number;
  readonly backlogMaxMs?: number;
};
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
  ...(backlogMaxMs !== undefined && { backlogMaxMs }),
});
const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
relay.on('poll', ({ trusted, lagMs }) => tell({ kind: 'poll', trusted, lagMs }));
relay.on('repair', ({ cause }) => tell({ kind: 'repair', cause }));
relay.on('failure', ({ error }) => tell({ kind: 'failure', message: error.message }));
