/**
 * A relay in a process of its own: the program of `relay.ts`.
 */
import { Cluster, Redis } from 'ioredis';
import knex, { type Knex } from 'knex';
import { deferred } from '../spec/support/deferred.js';
import { instantMs, obeyOrders } from './other-process.js';
import { redisStore } from '../lib/store/redis/index.js';
import { type Relay, startRelay } from '../lib/knex/index.js';

export interface RelayOrders {
  readonly cache: string;
  readonly postgresUrl: string;
  /** Of a Redis, or of a node of a Redis Cluster. */
  readonly redisUrl: string;
  readonly isCluster?: boolean;
  readonly maxStalenessMs?: number;
}

/** `start`: answers once it relays. `drain`: once it has relayed so many. `stop`: once it has ended. */
export type Order =
  { readonly start: RelayOrders } | { readonly drain: number; readonly orders: RelayOrders } | 'stop' | 'claims';

/** How long relaying took, from the first poll on, and how much memory this process had at most while it lasted. */
export interface Drained {
  readonly ms: number;
  readonly heapBytes: number;
}

/** A claim that found something: when the poll before it asked, and when it was bumped and committed. */
export interface Claim {
  readonly polledAtMs: number;
  readonly committedAtMs: number;
}

let running: { readonly db: Knex; readonly relay: Relay } | undefined;
let claims: Claim[] = [];

function start({ cache, postgresUrl, redisUrl, isCluster = false, maxStalenessMs }: RelayOrders): Relay {
  const db = knex({ client: 'pg', connection: postgresUrl, pool: { min: 0, max: 2 } });
  // A poll begins with a survey, or else with its claim.
  let surveyedAtMs: number | undefined;
  let polledAtMs = 0;
  db.on('query', ({ sql }: { sql: string }) => {
    if (sql.includes('pg_current_snapshot')) surveyedAtMs = instantMs();
  });
  const store = isCluster
    ? redisStore(new Cluster([redisUrl], { lazyConnect: true }))
    : redisStore(new Redis(redisUrl, { lazyConnect: true }));
  const relay = startRelay({ cache, db, store, ...(maxStalenessMs === undefined ? {} : { maxStalenessMs }) });
  relay.on('poll', () => {
    polledAtMs = surveyedAtMs ?? instantMs();
    surveyedAtMs = undefined;
  });
  relay.on('batch', () => claims.push({ polledAtMs, committedAtMs: instantMs() }));
  relay.on('failure', ({ error }) => process.stderr.write(`relay: ${error.message}\n`));
  running = { db, relay };
  return relay;
}

async function trusted(relay: Relay): Promise<number> {
  const { promise, resolve } = deferred<number>();
  const stop = relay.on('poll', (poll) => poll.trusted && resolve(instantMs()));
  const atMs = await promise;
  stop();
  return atMs;
}

async function drain(events: number, orders: RelayOrders): Promise<Drained> {
  const relay = start(orders);
  const { promise, resolve } = deferred<number>();
  let heapBytes = 0;
  relay.on('batch', () => {
    heapBytes = Math.max(heapBytes, process.memoryUsage().heapUsed);
    if (relay.status.events >= events) resolve(instantMs());
  });
  const sinceMs = await trusted(relay);
  return { ms: (await promise) - sinceMs, heapBytes };
}

async function stop(): Promise<void> {
  await running?.relay.stop();
  await running?.db.destroy();
  running = undefined;
}

async function obey(order: Order): Promise<unknown> {
  if (order === 'stop') return stop();
  if (order === 'claims') return claims.splice(0);
  if ('drain' in order) return drain(order.drain, order.orders);
  return trusted(start(order.start));
}

obeyOrders(obey);
