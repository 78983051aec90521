/**
 * The checked bound (ladder step 4a, docs/protocol.md, rules 9 to 11): a cache that trusts its entries only while a relay vouches
 * for them, that relay, and servers that go back in time.
 *
 * In each of these one process changes items and another reads them all the while, and each read is judged: it may show
 * nothing that was replaced by a commit which was answered the bound, or longer, before the read began.
 */
import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { GenerationalCache, integer, memoryStore, type Store } from '../../../../lib/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { installOutbox, knexSource, type Relay } from '../../../../lib/knex/index.js';
import { runProgram } from '../../../support-specs/programs/run.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { databaseUrl, schemaOf, privatePostgres } from '../../../support/postgres.js';
import { Proxy, startProxy } from '../../../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../../../support/redis.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';

const BOUND_MS = 1_000;
const POLL_MS = 20;
const ITEMS = 5;

/** What was committed, and what may be read. */
class Oracle {
  readonly #committed = new Map<number, { version: number; atMs: number }[]>();
  readonly violations: string[] = [];
  reads = 0;

  commit(item: number, version: number): void {
    const versions = this.#committed.get(item) ?? [];
    this.#committed.set(item, [...versions, { version, atMs: performance.now() }]);
  }

  /** What was committed is no more. */
  lose(item: number): void {
    this.#committed.delete(item);
  }

  read(who: string, item: number, version: number, beganMs: number): void {
    this.reads++;
    const least = (this.#committed.get(item) ?? []).findLast(({ atMs }) => atMs <= beganMs - BOUND_MS);
    if (least !== undefined && version < least.version) {
      const lateMs = Math.round(beganMs - least.atMs - BOUND_MS);
      this.violations.push(
        `${who} read version ${version} of item ${item}, ${lateMs} ms after version ${least.version} was due`,
      );
    }
  }
}

async function createItems(db: Knex): Promise<void> {
  await db.raw('create table item (id int primary key, version int not null)');
  await db.raw('insert into item select i, 1 from generate_series(1, ?::int) as i', [ITEMS]);
}

/** One side's cache: reads everything over and over from `watch` on, and is judged. */
function lendReader(db: Knex, store: Store, name: string, oracle: Oracle, who = 'the reader') {
  const cache = new GenerationalCache({
    ...{ name, store, source: knexSource(db), maxStalenessMs: BOUND_MS },
    ...{ readDeadlineMs: 200, ttlMs: 600_000, ttlJitter: 0 },
  });
  lend({ what: `the cache of ${who}`, close: () => cache.close() });
  const version = cache.namespace('item', integer()).one('version', {
    load: (ids, { db: at }) =>
      at<{ id: number; version: number }>('item').whereIn(
        'id',
        ids.map(({ item }) => Number(item)),
      ),
    by: ({ id }) => ({ item: id }),
    value: (row) => row.version,
  });
  let watching: Promise<void> | undefined;
  const over = new AbortController();
  const outcome = async (item = 1) => {
    const looked = await version.lookup({ item });
    return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
  };
  const fetch = async (item: number) => {
    const beganMs = performance.now();
    const value = await version.fetch({ item });
    if (value !== undefined) oracle.read(who, item, value, beganMs);
    return value;
  };
  const end = async () => {
    over.abort();
    await watching;
  };
  lend({ what: `the watch of ${who}`, close: end });
  return {
    ...{ cache, outcome, fetch, end },
    watch() {
      watching = (async () => {
        while (!over.signal.aborted) {
          for (let item = 1; item <= ITEMS; item++) await fetch(item).catch(() => {}); // PostgreSQL may be away
          await new Promise(setImmediate);
        }
      })();
    },
    /** Everything is in the cache. */
    warm: () =>
      eventually(
        async () => {
          for (let item = 1; item <= ITEMS; item++) await fetch(item);
          await cache.settled();
          for (let item = 1; item <= ITEMS; item++) expect(await outcome(item)).to.equal('hit');
        },
        { withinMs: 15_000 },
      ),
    bypasses: () =>
      eventually(async () => expect(await outcome()).to.be.oneOf(['not_fresh', 'store_failure']), { withinMs: 8_000 }),
  };
}

/** Gives an item its next version, as any program might: the change and its event, committed. */
async function change(db: Knex, cache: string, oracle: Oracle, item: number): Promise<number> {
  const { rows } = await db.raw<{ rows: { version: number }[] }>(
    `with event as (insert into gencache_outbox (cache, path, source, operation) values (?, ?, 'item', 'UPDATE'))
     update item set version = version + 1 where id = ? returning version`,
    [cache, `item=${item}`, item],
  );
  oracle.commit(item, rows[0]!.version);
  return rows[0]!.version;
}

interface Scene {
  readonly db: Knex;
  readonly name: string;
  readonly oracle: Oracle;
  change(item?: number): Promise<number>;
  /** Nothing waits any more. */
  drained(): Promise<unknown>;
  /** Changes an item and claims its event, for a transaction that bumps nothing: another claim may come first. */
  claimChange(claiming: Knex.Transaction): Promise<void>;
  /** Who was counted lately is not contested by another for some seconds: makes it long ago. */
  forgetCount(): PromiseLike<unknown>;
  /** Every entry is in the cache again, shows what is in PostgreSQL, and no read so far was too old. */
  recovered(reader: ReturnType<typeof lendReader>): Promise<void>;
}

async function scene(lent?: Knex): Promise<Scene> {
  const db = lent ?? (await lendOutbox({ pool: { max: 20 } }));
  await createItems(db);
  const name = uniqueName();
  const oracle = new Oracle();
  const drained = () =>
    eventually(async () => expect(await db('gencache_outbox').where({ cache: name })).to.deep.equal([]));
  return {
    ...{ db, name, oracle, drained },
    change: (item = 1) => change(db, name, oracle, item),
    claimChange: (claiming) =>
      eventually(async () => {
        await change(db, name, oracle, 1);
        const { rows } = await claiming.raw<{ rows: unknown[] }>(
          'select from gencache_outbox where cache = ? for update skip locked',
          [name],
        );
        expect(rows.length).to.be.greaterThan(0);
      }),
    forgetCount: () =>
      db('gencache_authority').update({ changed_at: db.raw(`clock_timestamp() - interval '1 minute'`) }),
    async recovered(reader) {
      await drained();
      const rows = await db<{ id: number; version: number }>('item').orderBy('id').select('id', 'version');
      // A repair may still be to come, and costs misses.
      await eventually(
        async () => {
          await reader.warm();
          for (const { id, version } of rows) expect(await reader.fetch(id), `item ${id}`).to.equal(version);
          for (const { id } of rows) expect(await reader.outcome(id)).to.equal('hit');
        },
        { withinMs: BOUND_MS + 5_000 },
      );
      expect(oracle.violations).to.deep.equal([]);
      expect(oracle.reads).to.be.greaterThan(ITEMS);
    },
  };
}

const trusting = (relay: Relay) => eventually(() => expect(relay.status.trusted).to.equal(true));

/** The causes of a relay's repairs, as they come. */
function repairsOf(relay: Relay): string[] {
  const causes: string[] = [];
  relay.on('repair', ({ cause }) => causes.push(cause));
  return causes;
}

describe('a bound that a relay guarantees', () => {
  const vouching = { maxStalenessMs: BOUND_MS, pollMs: POLL_MS, bumpDeadlineMs: 500 };

  it('keeps readers in the cache while a relay runs; a change misses; without a relay they leave; with another they return', async () => {
    const { db, name, oracle, change, recovered } = await scene();
    const redis = await privateRedis();
    const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
    const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
    await reader.warm();
    reader.watch();
    for (let i = 0; i < 5; i++) await change(1 + (i % ITEMS));
    await recovered(reader);
    await relay.stop();
    await change();
    await reader.bypasses();
    await change();
    const next = lendRelay({ db, cache: name, url: redis.url, ...vouching });
    await recovered(reader);
    expect(next.status.repairs).to.equal(0); // no server went back in time
  });

  for (const [how, end, goOn] of [
    ['killed', 'SIGKILL', undefined],
    ['suspended, and continued', 'SIGSTOP', 'SIGCONT'],
  ] as const) {
    it(`makes readers leave the cache in time when the relay ${how}, and return with a relay`, async () => {
      const { db, name, oracle, change, recovered } = await scene();
      const redis = await privateRedis();
      const options = {
        redis: redis.url,
        postgres: databaseUrl(),
        searchPath: [schemaOf(db)],
        cache: name,
        ...vouching,
      };
      const program = runProgram('spec/knex/relay/programs/relay.ts', [JSON.stringify(options)]);
      const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
      await reader.warm();
      reader.watch();
      process.kill(program.pid, end);
      await change(1);
      await reader.bypasses();
      await change(2);
      if (goOn === undefined) lendRelay({ db, cache: name, url: redis.url, ...vouching });
      else process.kill(program.pid, goOn);
      await recovered(reader);
    });
  }

  it('keeps readers away exactly as long as an event can’t be relayed', async () => {
    const { db, name, oracle, change, claimChange, recovered } = await scene();
    const redis = await privateRedis();
    lendRelay({ db, cache: name, url: redis.url, ...vouching });
    const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
    await reader.warm();
    reader.watch();
    const claiming = await db.transaction();
    await change(1);
    await claimChange(claiming);
    await reader.bypasses();
    await claiming.commit();
    await recovered(reader);
  });

  it('keeps the cache in use under a load that never leaves the outbox empty', async () => {
    const { db, name, oracle, change, recovered } = await scene();
    const redis = await privateRedis();
    const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
    const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
    await reader.warm();
    const over = new AbortController();
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      while (!over.signal.aborted) await change(2 + writer);
    });
    for (let hits = 0; hits < 200 || relay.status.events <= 20;) if ((await reader.outcome(1)) === 'hit') hits++;
    over.abort();
    await Promise.all(writers);
    await recovered(reader);
  });

  describe('when Redis goes back in time', () => {
    it('misses on values changed since the snapshot from which Redis restarted', async () => {
      const { db, name, oracle, change, drained, forgetCount, recovered } = await scene();
      const redis = await privateRedis();
      const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
      const causes = repairsOf(relay);
      const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
      await reader.warm();
      await lendRedis({ url: redis.url }).save();
      await change(1);
      await change(2);
      await drained();
      reader.watch();
      await forgetCount();
      await redis.kill('SIGKILL');
      await change(3);
      await redis.restart();
      await recovered(reader);
      expect(causes).to.deep.equal(['first', 'store']);
    });

    it('makes readers leave after a flush until the repair', async () => {
      const { db, name, oracle, change, recovered } = await scene();
      const redis = await privateRedis();
      const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
      const causes = repairsOf(relay);
      const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
      await reader.warm();
      reader.watch();
      await change(1);
      await lendRedis({ url: redis.url }).flushall();
      await change(2);
      await recovered(reader);
      await eventually(() => expect(causes).to.deep.equal(['first', 'mark']));
    });

    /** A primary, its replica, which has all of it and then is cut off, and an address that leads to the first. */
    async function replicated() {
      const [primary, replica] = await Promise.all([privateRedis(), privateRedis()]);
      const [at, from] = [lendRedis({ url: primary.url }), lendRedis({ url: replica.url })];
      const address = await startProxy(primary.port);
      await from.replicaof('127.0.0.1', primary.port);
      await eventually(async () => expect(await from.info('replication')).to.contain('master_link_status:up'));
      return {
        ...{ primary, replica, address },
        async cutOff() {
          await at.set('last', '1');
          expect(await at.wait(1, 5_000)).to.equal(1);
          await from.replicaof('127.0.0.1', 1);
        },
        promote: () => from.replicaof('NO', 'ONE'),
        /** The address leads to the replica from now on. */
        async failOver() {
          address.refuse();
          address.cut();
          const moved = new Proxy(address.port, replica.port);
          await moved.accept();
          lend({ what: 'the moved proxy', close: () => moved.close() });
        },
      };
    }

    it('misses on changed values after a failover to a replica that missed bumps', async () => {
      const { db, name, oracle, change, drained, forgetCount, recovered } = await scene();
      const { primary, address, cutOff, promote, failOver } = await replicated();
      const relay = lendRelay({ db, cache: name, url: address.url, ...vouching });
      const causes = repairsOf(relay);
      const reader = lendReader(db, redisStore(lendRedis({ url: address.url })), name, oracle);
      await reader.warm();
      await cutOff();
      await change(1);
      await change(2);
      await drained(); // deleted, for bumps that the replica has not got
      await reader.warm();
      reader.watch();
      await forgetCount();
      await primary.kill('SIGKILL');
      await change(3);
      await promote();
      await failOver();
      await recovered(reader);
      expect(causes).to.deep.equal(['first', 'store']);
    });

    it('is kept on both sides of a split brain with a relay on each side', async () => {
      const { db, name, oracle, change, drained, forgetCount, recovered } = await scene();
      const { primary, replica, cutOff, promote } = await replicated();
      const relays = [lendRelay({ db, cache: name, url: primary.url, ...vouching })];
      const left = lendReader(db, redisStore(lendRedis({ url: primary.url })), name, oracle, 'the left side');
      await left.warm();
      await cutOff();
      await promote();
      relays.push(lendRelay({ db, cache: name, url: replica.url, ...vouching }));
      const right = lendReader(db, redisStore(lendRedis({ url: replica.url })), name, oracle, 'the right side');
      left.watch();
      right.watch();
      for (let turn = 0; turn < 8; turn++) {
        const repairs = () => relays.reduce((sum, { status }) => sum + status.repairs, 0);
        const before = repairs();
        await forgetCount(); // the other one takes its turn
        await eventually(async () => {
          await change(1 + (turn % ITEMS));
          expect(repairs()).to.be.greaterThan(before);
        });
        await drained();
      }
      await relays[0]!.stop();
      await forgetCount();
      await recovered(right);
      await left.bypasses();
      expect(oracle.violations).to.deep.equal([]);
    });
  });

  describe('when PostgreSQL goes back in time', () => {
    /** A server of the spec's own. */
    async function lendServer(settings: Record<string, string> = {}) {
      const server = await privatePostgres({ settings });
      const db = knex({
        client: 'pg',
        connection: server.url,
        pool: { min: 0, max: 20 },
        log: { warn() {}, error() {}, debug() {}, deprecate() {} },
      });
      lend({ what: 'its Knex', close: () => db.destroy() });
      await installOutbox(db);
      return { server, db };
    }

    it('bumps everything once after a restart, and uses the cache again', async () => {
      const { server, db } = await lendServer();
      const { name, oracle, change, recovered } = await scene(db);
      const redis = await privateRedis();
      const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
      const causes = repairsOf(relay);
      const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
      await reader.warm();
      reader.watch();
      await change(1);
      await server.restart();
      await change(2);
      await recovered(reader);
      expect(causes).to.deep.equal(['first', 'source']);
    });

    for (const [what, crash] of [
      [
        'killed',
        async (server: { kill(signal: NodeJS.Signals): Promise<void>; restart(): Promise<void> }) => {
          await server.kill('SIGKILL');
          await server.restart();
        },
      ],
      [
        'one session of it killed, while the server itself goes on',
        async (_: unknown, session: number) => {
          process.kill(session, 'SIGKILL');
        },
      ],
    ] as const) {
      it(`drops cached values of lost commits: ${what}`, async () => {
        // Nothing is written before a crash: no commit waits for it, and the WAL writer sleeps. A full page of WAL wakes
        // it, so the changes begin with a new segment, and are shorter than its first page of 8 kB.
        const { server, db } = await lendServer({
          wal_writer_delay: '10000',
          checkpoint_timeout: '1h',
          bgwriter_lru_maxpages: '0',
          autovacuum: 'off',
        });
        const { name, oracle, change, drained, recovered } = await scene(db);
        const redis = await privateRedis();
        const relay = lendRelay({ db, cache: name, url: redis.url, ...vouching });
        const causes = repairsOf(relay);
        const reader = lendReader(db, redisStore(lendRedis({ url: redis.url })), name, oracle);
        await reader.warm();
        const { rows } = await db.raw<{ rows: { pid: number }[] }>('select pg_backend_pid() as pid');
        await db.raw('select pg_switch_wal()');
        await db.raw('checkpoint');
        for (let i = 0; i < 3; i++) await change(2);
        await drained();
        await reader.warm();
        expect(await reader.fetch(2)).to.equal(4);
        await crash(server, rows[0]!.pid);
        oracle.lose(2);
        await eventually(async () => expect((await db('item').where({ id: 2 }).first()).version).to.equal(1));
        await eventually(async () => expect(await reader.fetch(2)).to.equal(1), { withinMs: BOUND_MS + 4_000 });
        expect(causes).to.deep.equal(['first', 'source']);
        // Ids of transactions come again: their events are found all the same.
        for (let item = 3; item <= ITEMS; item++) await change(item);
        await recovered(reader);
      });
    }
  });

  describe('when the store’s clock is set', () => {
    /** A cache and a relay on one in-memory store, whose clock the spec sets; the cache's own clock is the real one. */
    async function clocked() {
      const lent = await scene();
      let offsetMs = 1_000_000_000;
      const store = memoryStore({ clock: { nowMs: () => performance.now() + offsetMs } });
      const relay = lendRelay({ db: lent.db, cache: lent.name, store, ...vouching });
      const reader = lendReader(lent.db, store, lent.name, lent.oracle);
      await trusting(relay);
      await reader.warm();
      return { ...lent, relay, reader, jump: (ms: number) => (offsetMs += ms) };
    }

    for (const ms of [-600_000, -5_000, -800, -300, 300, 5_000, 600_000]) {
      it(`set ${ms < 0 ? 'back' : 'on'} by ${Math.abs(ms)} ms while an event waits lets no reader exceed the bound`, async () => {
        const { db, reader, jump, claimChange, recovered } = await clocked();
        reader.watch();
        const claiming = await db.transaction();
        await claimChange(claiming);
        for (let i = 0; i < 3; i++) {
          jump(ms);
          for (let polls = 0; polls < 3; polls++) await reader.fetch(1);
        }
        await reader.bypasses();
        jump(ms);
        await reader.bypasses();
        await claiming.commit();
        await recovered(reader);
      });
    }
  });
});
