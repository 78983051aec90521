/**
 * Faults of the source, with Redis up: PostgreSQL hangs, fails, goes away and comes back, or is asked too much. A lock on
 * the table makes queries hang at the server.
 */
import { expect } from 'chai';
import { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { setTimeout as sleep } from 'node:timers/promises';
import { GenerationalCache, integer, type CacheSettings } from '../../lib/index.js';
import { installOutbox, type KnexContext, knexSource } from '../../lib/knex/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { READ_DEADLINE_MS } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { lendKnex } from '../support/knexes.js';
import { lend } from '../support/lenders.js';
import { databaseUrl, lendDatabase, privatePostgres, schemaOf } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { redisUrl, uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { watchListeners, watchResources } from './leftovers.js';

interface Row {
  readonly id: number;
  readonly version: number;
}

type Query = (ids: number[], db: Knex) => PromiseLike<Row[]>;

/** Items that are filled before the fault: reads of them are hits. */
const FILLED = 10;
const ITEMS = 200;
const READERS = 20;
/** A call that takes this long hangs. Far more than the limits of these specs. */
const HANG_MS = 8_000;
/** Long enough for a query on a busy machine. */
const HARD_TIMEOUT_MS = 400;

const byIds: Query = (ids, db) => db<Row>('item').whereIn('id', ids).select('id', 'version');

describe('the source', () => {
  let db: Knex;
  beforeEach(async () => {
    db = await lendDatabase({ pool: { min: 1 } });
    await createItems(db);
  });

  describe('that hangs', () => {
    it('holds the callers of its loads alone, until it goes on', async () => {
      const { source, value, hits, close } = await open(lendKnex(databaseUrl(), schemaOf(db)));
      const held = await lock(db);
      const reading = Array.from({ length: READERS }, (_, i) => value.fetch({ item: FILLED + i }));
      await eventually(async () => expect(await held.waiting()).to.be.above(0));
      await hits();
      await held.release();
      expect(await Promise.all(reading)).to.deep.equal(Array(READERS).fill(1));
      await close(source);
    });

    it('lets close() end, and the callers get their values when it goes on', async () => {
      const { cache, source, value, close } = await open(lendKnex(databaseUrl(), schemaOf(db)), {
        closeDeadlineMs: 100,
        loadsMax: 1,
      });
      const held = await lock(db);
      const running = value.fetch({ item: FILLED });
      await eventually(async () => expect(await held.waiting()).to.equal(1));
      const queued = rejection(value.fetch({ item: FILLED + 1 }));
      await eventually(() => expect(cache.state.loads.waiting).to.equal(1));
      await inTime(cache.close());
      expect(await queued).to.have.property('code', 'CLOSED');
      await held.release();
      expect(await running).to.equal(1);
      await close(source);
    });

    it('rejects each caller at the hard timeout, is cancelled, and gets the next loads', async () => {
      const { cache, source, value, hits, close } = await open(lendKnex(databaseUrl(), schemaOf(db)), {
        loadHardTimeoutMs: HARD_TIMEOUT_MS,
      });
      const held = await lock(db);
      const errors = Array.from({ length: READERS }, (_, i) => rejection(value.fetch({ item: FILLED + i })));
      await hits();
      for (const error of await inTime(Promise.all(errors))) expect(error).to.have.property('code', 'LOAD_TIMEOUT');
      await eventually(async () => expect(await held.waiting()).to.equal(0));
      await cache.settled();
      expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
      await held.release();
      expect(await value.fetch({ item: FILLED })).to.equal(1);
      await close(source);
    });

    it('and returns after the hard timeout fills the cache, of other processes too', async () => {
      const source = lendKnex(databaseUrl(), schemaOf(db));
      // On an instance of its own, so that no cancellation reaches it.
      const query: Query = (ids) => byIds(ids, source);
      const { cache, value, queries, hits, close } = await open(source, { loadHardTimeoutMs: HARD_TIMEOUT_MS, query });
      const other = await open(source, { name: cache.name, query });
      const held = await lock(db);
      expect(await rejection(value.fetch({ item: FILLED }))).to.have.property('code', 'LOAD_TIMEOUT');
      expect(cache.state.loads).to.deep.equal({ running: 1, overdue: 1, waiting: 0, elsewhere: 0 });
      await hits();
      await held.release();
      await cache.settled();
      const before = queries() + other.queries();
      expect(await value.fetch({ item: FILLED })).to.equal(1);
      expect(await other.value.fetch({ item: FILLED })).to.equal(1);
      expect(queries() + other.queries()).to.equal(before);
      await other.close();
      await close(source);
    });
  });

  it('fails for one id of many callers: that caller gets its error, and all others their values', async () => {
    const bad = FILLED + 7;
    await db('item').where({ id: bad }).update({ version: 0 });
    const query: Query = (ids, own) =>
      own<Row>('item').whereIn('id', ids).select('id', own.raw('100 / version as version'));
    const { cache, source, value, queries, hits, close } = await open(lendKnex(databaseUrl(), schemaOf(db)), { query });
    const items = Array.from({ length: 100 }, (_, i) => FILLED + i);
    const read = await Promise.allSettled(items.map((item) => value.fetch({ item })));
    const failed = read.flatMap((result, i) => (result.status === 'rejected' ? [{ item: items[i], ...result }] : []));
    expect(failed.map(({ item, reason }) => [item, (reason as { code: string }).code])).to.deep.equal([[bad, '22012']]); // division by zero
    await cache.settled();
    const before = queries();
    expect(await value.fetchMany(items.filter((item) => item !== bad).map((item) => ({ item })))).to.have.length(99);
    expect(queries(), 'queries of what was filled').to.equal(before);
    await hits();
    await db('item').where({ id: bad }).update({ version: 1 });
    expect(await value.fetch({ item: bad })).to.equal(100);
    await close(source);
  });

  describe('that goes away', () => {
    it('killed: misses reject with its error, hits go on, and all is as before when it is back', async () => {
      const server = await privatePostgres({ durable: true });
      const locking = lendKnex(server.url);
      await createItems(locking);
      const { cache, source, value, hits, close } = await open(lendKnex(server.url));
      const held = await lock(locking);
      const running = rejection(value.fetch({ item: FILLED }));
      await eventually(() => expect(cache.state.loads.running).to.equal(1));
      await server.kill('SIGKILL');
      await inTime(running);
      await held.release(); // its session is gone
      for (let i = 0; i < 5; i++) {
        const errors = Array.from({ length: READERS }, (_, j) => rejection(value.fetch({ item: FILLED + j })));
        for (const error of await inTime(Promise.all(errors)))
          expect(error).to.not.have.property('code', 'SOURCE_OVERLOAD');
        await hits();
      }
      await refused(() => value.fetch({ item: FILLED }));
      await server.restart();
      await eventually(async () => expect(await value.fetch({ item: FILLED })).to.equal(1));
      await hits();
      await close(source);
    });

    it('serves what is beyond its TTL within staleMs and staleOnErrorMs, and rejects what it has never had', async () => {
      const server = await privatePostgres({ durable: true });
      await createItems(lendKnex(server.url));
      const stale = { ttlMs: 300, ttlJitter: 0, staleMs: 600_000 };
      const onError = { ttlMs: 300, ttlJitter: 0, staleOnErrorMs: 600_000 };
      for (const options of [stale, onError]) {
        const { source, value, close } = await open(lendKnex(server.url), options);
        expect(await value.fetch({ item: FILLED })).to.equal(1);
        await sleep(400);
        await server.kill('SIGKILL');
        const reads = Array.from({ length: READERS }, () => value.fetch({ item: FILLED }));
        expect(await inTime(Promise.all(reads))).to.deep.equal(Array(READERS).fill(1));
        await refused(() => value.fetch({ item: FILLED + 1 }));
        await server.restart();
        await eventually(async () => expect(await value.fetch({ item: FILLED + 1 })).to.equal(1));
        await close(source);
      }
    });

    it('without a word: misses reject at the hard timeout, hits go on, and all is as before when it is back', async () => {
      const proxy = await startProxy(Number(new URL(databaseUrl()).port), { protocol: 'postgres' });
      const url = new URL(databaseUrl());
      url.host = `127.0.0.1:${proxy.port}`;
      const { cache, source, value, hits, close } = await open(lendKnex(url.href, schemaOf(db), { max: 4 }), {
        loadHardTimeoutMs: HARD_TIMEOUT_MS,
      });
      proxy.hold();
      const errors = Array.from({ length: READERS }, (_, i) => rejection(value.fetch({ item: FILLED + i })));
      await hits();
      for (const error of await inTime(Promise.all(errors))) expect(error).to.have.property('code', 'LOAD_TIMEOUT');
      proxy.cut();
      proxy.release();
      await inTime(cache.settled());
      expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
      await eventually(async () => expect(await value.fetch({ item: FILLED })).to.equal(1));
      await close(source);
    });
  });

  describe('on a pool of one connection', () => {
    it('serves readers of many items, and a writer, none of which waits for a second connection', async () => {
      await installOutbox(db);
      const { cache, items, source, value, close } = await open(lendKnex(databaseUrl(), schemaOf(db), { max: 1 }));
      const over = new AbortController();
      const least = new Map<number, number>();
      const reader = async () => {
        while (!over.signal.aborted) {
          const item = Math.floor(Math.random() * FILLED);
          const version = least.get(item) ?? 1;
          expect(await inTime(value.fetch({ item }))).to.be.at.least(version);
        }
      };
      const reading = Promise.all(Array.from({ length: READERS }, reader));
      const writing = async () => {
        for (let i = 0; i < 40; i++) {
          const item = i % FILLED;
          const strict = i % 2 === 1;
          const { value: version, ...outcome } = await inTime(
            cache.transaction(
              async (trx) => {
                await items.bump({ item }, { trx });
                const before = await value.fetch({ item }, { trx });
                await trx('item')
                  .where({ id: item })
                  .update({ version: before! + 1 });
                return before! + 1;
              },
              { strict },
            ),
          );
          expect(outcome).to.deep.equal({ bump: 'done', ...(strict && { strict: 'kept' }) });
          least.set(item, version);
        }
      };
      await Promise.race([writing(), reading]);
      over.abort();
      await reading;
      await close(source);
    });

    it('is free again when a load on it is cancelled, and the loads that waited for it get their turns', async () => {
      const { cache, source, value, hits, close } = await open(lendKnex(databaseUrl(), schemaOf(db), { max: 1 }), {
        loadHardTimeoutMs: HARD_TIMEOUT_MS,
      });
      const held = await lock(db);
      const errors: Promise<Error>[] = [];
      for (let i = 0; i < 5; i++) {
        errors.push(rejection(value.fetch({ item: FILLED + i })));
        await eventually(() => expect(cache.state.loads.running).to.be.above(0));
      }
      await hits();
      for (const error of await inTime(Promise.all(errors))) expect(error).to.have.property('code', 'LOAD_TIMEOUT');
      await inTime(cache.settled());
      await held.release();
      expect(await inTime(value.fetch({ item: FILLED }))).to.equal(1);
      await close(source);
    });
  });

  it('has a full queue: those beyond it are refused at once, and none else', async () => {
    const [running, waiting, beyond] = [2, 5, 13];
    const { cache, source, value, hits, close } = await open(lendKnex(databaseUrl(), schemaOf(db)), {
      loadsMax: running,
      loadQueueMax: waiting,
      loadQueueTimeoutMs: 600_000,
    });
    const held = await lock(db);
    const reads: Promise<number | undefined>[] = [];
    for (let i = 0; i < running + waiting; i++) {
      reads.push(value.fetch({ item: FILLED + i }));
      await eventually(() => {
        const { loads } = cache.state;
        expect(loads.running + loads.waiting).to.equal(i + 1);
      });
    }
    const refused = Array.from({ length: beyond }, (_, i) => rejection(value.fetch({ item: FILLED + 20 + i })));
    for (const error of await inTime(Promise.all(refused))) expect(error).to.have.property('code', 'SOURCE_OVERLOAD');
    await hits();
    await held.release();
    expect(await inTime(Promise.all(reads))).to.deep.equal(Array(running + waiting).fill(1));
    expect(await value.fetch({ item: FILLED + 20 })).to.equal(1);
    await close(source);
  });
});

/** One process of an application, with hits on `FILLED` items. */
async function open(
  source: Knex,
  { query = byIds, name = uniqueName(), ...settings }: Partial<CacheSettings> & { query?: Query } = {},
) {
  await Promise.resolve(); // mocha's own timer has started
  const nothingLeft = watchResources();
  await source.raw('select 1'); // connected
  const client = new Redis(redisUrl(), { lazyConnect: true });
  const noListenerLeft = watchListeners(client, source);
  const cache = new GenerationalCache<KnexContext, Knex.Transaction>({
    ...{ name, store: redisStore(client), source: knexSource(source), readDeadlineMs: READ_DEADLINE_MS, ...settings },
  });
  lend({ what: 'the cache', close: () => cache.close() });
  let queries = 0;
  let queriesOfFilled = 0;
  const items = cache.namespace('item', integer());
  const value = items.one<Row, number>('version', {
    load: async (ids, context) => {
      const asked = ids.map(({ item }) => Number(item));
      queries++;
      if (asked.some((item) => item < FILLED)) queriesOfFilled++;
      return query(asked, context.db);
    },
    by: ({ id }) => ({ item: id }),
    value: ({ version }) => version,
  });
  const filled = Array.from({ length: FILLED }, (_, item) => ({ item }));
  const versions = await value.fetchMany(filled);
  await cache.settled();
  return {
    ...{ cache, items, value, source },
    queries: () => queries,
    /** Asserts that reads of the filled items are hits, in time. */
    async hits(): Promise<void> {
      const before = queriesOfFilled;
      for (let round = 0; round < 10; round++) {
        expect(await inTime(Promise.all(filled.map((ids) => value.fetch(ids))))).to.deep.equal(versions);
      }
      expect(queriesOfFilled, 'queries of hits').to.equal(before);
    },
    /** Closes the cache, and `db`; asserts that nothing is left. */
    async close(db?: Knex): Promise<void> {
      await inTime(cache.close());
      expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
      await noListenerLeft();
      client.disconnect();
      await db?.destroy();
      if (db) await nothingLeft();
    },
  };
}

async function createItems(db: Knex): Promise<void> {
  await db.schema.createTable('item', (table) => {
    table.integer('id').primary();
    table.integer('version').notNullable();
  });
  await db('item').insert(Array.from({ length: ITEMS }, (_, id) => ({ id, version: 1 })));
}

/** A lock under which every query of the items hangs at the server. */
interface Lock {
  /** The number of sessions that wait for it. */
  waiting(): Promise<number>;
  release(): Promise<void>;
}

async function lock(db: Knex): Promise<Lock> {
  const trx = await db.transaction();
  trx.executionPromise.catch(() => {}); // its server may be killed
  await trx.raw('lock table item in access exclusive mode');
  return {
    async waiting() {
      const { rows } = await trx.raw<{ rows: { count: string }[] }>(
        `select count(*) from pg_locks where not granted and relation = 'item'::regclass`,
      );
      return Number(rows[0]!.count);
    },
    async release() {
      await trx.commit();
    },
  };
}

/** A connection in the backlog of a server that is being killed is reset; every later one is refused. */
async function refused(read: () => Promise<unknown>): Promise<void> {
  await eventually(async () => expect(await rejection(read())).to.have.property('code', 'ECONNREFUSED'));
}

/** Rejects if the work hangs. */
async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`It took longer than ${HANG_MS} ms.`)), HANG_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
