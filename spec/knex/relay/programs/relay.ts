/**
 * A relay in a process of its own. argv: its options as JSON, with the URLs of its servers.
 *
 * Prints a line when it trusts its servers, and one for each batch: how many events it has relayed, and its largest
 * resident set so far, in bytes.
 */
import { Redis } from 'ioredis';
import knex from 'knex';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { startRelay } from '../../../../lib/knex/index.js';

const { redis, postgres, searchPath, ...options } = JSON.parse(process.argv[2]!) as {
  redis: string;
  postgres: string;
  searchPath: string[];
  cache: string;
};
const db = knex({ client: 'pg', connection: postgres, searchPath, pool: { min: 0, max: 4 } });
const relay = startRelay({ ...options, db, store: redisStore(new Redis(redis, { lazyConnect: true })) });
const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const untrusted = relay.on('poll', ({ trusted }) => {
  if (!trusted) return;
  untrusted();
  tell({ trusted });
});
let rss = 0;
relay.on('batch', ({ events }) => {
  rss = Math.max(rss, process.memoryUsage.rss());
  tell({ events, relayed: relay.status.events, rss });
});
