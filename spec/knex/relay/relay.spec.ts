import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { GenerationalCache, integer, memoryStore, type Store } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { installOutbox, knexSource, notifyRelays, type RelayEvents, startRelay } from '../../../lib/knex/index.js';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { Partitions } from '../../../lib/ports/partitions.js';
import { EVERYWHERE } from '../../../lib/knex/outbox/event-position.js';
import { claimAuthority, type Epoch } from '../../../lib/knex/outbox/authority.js';
import { surveyOutbox } from '../../../lib/knex/outbox/survey.js';
import { DisplacedError } from '../../../lib/knex/relay/authoritative-bump.js';
import { inBumpTransaction } from '../../../lib/knex/relay/bump-transaction.js';
import { relayBatch } from '../../../lib/knex/relay/relay-batch.js';
import { recordCommands } from '../../support/commands.js';
import { deferred, eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, schemaOf, privatePostgres } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { lendProxied } from '../../support/knexes.js';
import { rejection, thrown } from '../../support/rejection.js';

describe('a relay', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { max: 20 } });
    cache = uniqueName();
  });

  const record = (paths: readonly string[], at: Knex = db, of = cache) =>
    at.raw(
      `insert into gencache_outbox (cache, path, source, operation) select ?, path, 'public.item', 'UPDATE' from unnest(?::text[]) as path`,
      [of, paths as unknown as string],
    );
  const recordItems = (items: number) => record(Array.from({ length: items }, (_, i) => `item=${i}`));
  const waiting = () => db('gencache_outbox').where({ cache }).orderBy(['xid', 'seq']).pluck<string[]>('path');
  const trusting = async (relay: { status: { trusted: boolean } }) =>
    eventually(() => expect(relay.status.trusted).to.equal(true));
  const drained = () => eventually(async () => expect(await waiting()).to.deep.equal([]));

  /** Sessions that wait for their client inside a transaction: a relay's between claim and commit. */
  const idleInTransaction = async () => {
    const { rows } = await db.raw<{ rows: unknown[] }>(
      `select from pg_stat_activity where application_name = ? and state = 'idle in transaction'`,
      [schemaOf(db)],
    );
    return rows.length;
  };

  /** Generations for these scopes, as readers would have minted them. Tells which were bumped, and how often. */
  async function mint(paths: readonly string[], url = redisUrl()) {
    const redis = lendRedis({ url });
    const keys = paths.map((path) => generationKey(keyPrefix(cache), path));
    for (const key of keys) await redis.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    return async () => (await redis.mget(keys)).map((value) => Number.parseInt(value ?? '-1', 10));
  }

  it('is stopped at the end of a block that declares it with `await using`', async () => {
    let relay;
    {
      await using own = startRelay({ db, cache, store: redisStore(lendRedis({ lazyConnect: true })) });
      relay = own;
      await trusting(own);
    }
    await recordItems(1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await waiting()).to.deep.equal(['item=0']);
    await relay.stop();
  });

  it('bumps and deletes events, and reports them', async () => {
    const bumps = await mint(['item=1', 'item=2', 'item=3']);
    const batches: RelayEvents['batch'][0][] = [];
    const relay = lendRelay({ db, cache });
    relay.on('batch', (batch) => batches.push(batch));
    await trusting(relay);
    await record(['item=1', 'item=2', 'item=1']);
    await drained();
    expect(await bumps()).to.deep.equal([1, 1, 0]);
    await eventually(() =>
      expect(relay.status).to.include({ events: 3, scopes: 2, failures: 0, repairs: 1, deadLetters: 0 }),
    );
    await eventually(() => expect(relay.status.lagMs).to.equal(0));
    const [{ durationMs, ...batch }] = batches as [RelayEvents['batch'][0]];
    expect(batch).to.deep.equal({
      cache,
      events: 3,
      scopes: 2,
      paths: ['item=1', 'item=2'],
      causes: new Map([['public.item UPDATE', 3]]),
      deadLetters: [],
    });
    expect(durationMs).to.be.greaterThan(0);
    expect(batches).to.have.length(1);
  });

  it('deletes a foreign value at a generation’s key, warns of it, and bumps the other events', async () => {
    const warnings: string[] = [];
    const generationKey = `gencache:{${cache}:0}:g:item=1`;
    const redis = lendRedis();
    await redis.set(generationKey, 'a form of a later release', 'PX', 60_000);
    const bumps = await mint(['item=2']);
    await record(['item=1', 'item=2']);
    const relay = lendRelay({ db, cache });
    relay.on('warning', ({ message }) => warnings.push(message));
    await drained();
    expect(await bumps()).to.deep.equal([1]);
    expect(await redis.exists(generationKey)).to.equal(0);
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.match(/^A bump deleted 1 foreign value at the keys of generations, first that of item=1\./);
    expect(relay.status.failures).to.equal(0);
  });

  it('bumps global when it takes authority, and not again on the same server', async () => {
    const bumps = await mint(['']);
    const causes: string[] = [];
    const first = lendRelay({ db, cache });
    first.on('repair', ({ cause }) => causes.push(cause));
    await trusting(first);
    const second = lendRelay({ db, cache });
    await trusting(second);
    expect(causes).to.deep.equal(['first']);
    expect([first.status.repairs, second.status.repairs]).to.deep.equal([1, 0]);
    expect(await bumps()).to.deep.equal([1]);
  });

  it('bumps no event before the commit of its transaction', async () => {
    const bumps = await mint(['item=1']);
    const relay = lendRelay({ db, cache, pollMs: 1 });
    await trusting(relay);
    const trx = await db.transaction();
    await record(['item=1'], trx);
    for (let polls = 0; polls < 5; polls++) await new Promise((resolve) => relay.on('poll', resolve));
    expect(await bumps()).to.deep.equal([0]);
    await trx.commit();
    await drained();
    expect(await bumps()).to.deep.equal([1]);
  });

  it('leaves events of other caches alone', async () => {
    const relay = lendRelay({ db, cache });
    await record(['item=1'], db, 'another');
    await record(['item=1']);
    await drained();
    expect(await db('gencache_outbox').pluck('cache')).to.deep.equal(['another']);
    await eventually(() => expect(relay.status.events).to.equal(1));
  });

  describe('beside other relays', () => {
    it('skips events that another relay has claimed', async () => {
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const slow = lendRelay({ db, cache, url: proxy.url, batchMax: 10, bumpDeadlineMs: 10_000 });
      await trusting(slow);
      const bumps = await mint(Array.from({ length: 30 }, (_, i) => `item=${i}`));
      proxy.hold();
      await recordItems(30);
      await eventually(async () => expect(await claimed()).to.equal(10));
      const quick = lendRelay({ db, cache, batchMax: 10 });
      await eventually(() => expect(quick.status.events).to.equal(20));
      expect(await waiting()).to.have.length(10);
      proxy.release();
      await drained();
      await eventually(() => expect(slow.status.events + quick.status.events).to.equal(30));
      expect(await bumps()).to.deep.equal(Array(30).fill(1));
    });

    /** Rows that a session has locked. */
    const claimed = async () => {
      const all = await waiting();
      const free = await db.transaction((trx) =>
        trx.raw<{ rows: unknown[] }>('select from gencache_outbox where cache = ? for update skip locked', [cache]),
      );
      return all.length - free.rows.length;
    };

    it('bumps each of 5,000 events at least once beside steady writers', async () => {
      const bumps = await mint(Array.from({ length: 5_000 }, (_, i) => `item=${i}`));
      const relays = Array.from({ length: 4 }, () => lendRelay({ db, cache, batchMax: 50, pollMs: 1 }));
      for (let start = 0; start < 5_000; start += 500) {
        const trx = await db.transaction();
        await record(
          Array.from({ length: 250 }, (_, i) => `item=${start + i}`),
          trx,
        );
        await record(Array.from({ length: 250 }, (_, i) => `item=${start + 250 + i}`));
        await trx.commit();
      }
      await drained();
      await Promise.all(relays.map((relay) => relay.stop()));
      await eventually(() => expect(relays.reduce((sum, { status }) => sum + status.events, 0)).to.equal(5_000));
      expect((await bumps()).every((times) => times >= 1)).to.equal(true);
      expect(relays.map(({ status }) => status.failures)).to.deep.equal([0, 0, 0, 0]);
    });

    it('takes over the claim of a suspended relay once PostgreSQL has ended its session', async () => {
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const silent = lendRelay({
        db,
        cache,
        url: proxy.url,
        bumpDeadlineMs: 10_000,
        silenceMaxMs: 200,
        stopDeadlineMs: 10,
      });
      await trusting(silent);
      proxy.hold();
      await recordItems(3);
      await eventually(async () => expect(await claimed()).to.equal(3));
      const bumps = await mint(['item=0', 'item=1', 'item=2']);
      const other = lendRelay({ db, cache });
      await drained();
      await eventually(() => expect(other.status.events).to.equal(3));
      expect(await bumps()).to.deep.equal([1, 1, 1]);
      proxy.release(); // it wakes up, bumps once more, and finds that its claim is gone
      await eventually(() => expect(silent.status.failures).to.be.greaterThan(0));
      await trusting(silent);
      expect(silent.status.events).to.equal(0);
      expect(await bumps()).to.deep.equal([2, 2, 2]);
    });

    it('takes authority once when many relays begin at the same time', async () => {
      const bumps = await mint(['']);
      const relays = Array.from({ length: 6 }, () => lendRelay({ db, cache, pollMs: 5 }));
      for (const relay of relays) await trusting(relay);
      expect(relays.filter(({ status }) => status.repairs > 0).length).to.be.at.least(1);
      expect((await bumps())[0]).to.equal(relays.reduce((sum, { status }) => sum + status.repairs, 0));
    });
  });

  describe('when Redis is away', () => {
    it('reports the lag, keeps the events, and goes on when it is back', async () => {
      const server = await privateRedis();
      const relay = lendRelay({ db, cache, url: server.url, bumpDeadlineMs: 500 });
      await trusting(relay);
      await server.kill('SIGKILL');
      await recordItems(2);
      const lags: number[] = [];
      relay.on('poll', ({ lagMs, trusted }) => !trusted && lags.push(lagMs));
      await eventually(() => {
        expect(lags.length).to.be.greaterThan(2);
        expect(lags.at(-1)).to.be.greaterThan(lags[0]!);
      });
      expect(await waiting()).to.deep.equal(['item=0', 'item=1']);
      await server.restart();
      await drained();
      await eventually(() => expect(relay.status).to.include({ events: 2, repairs: 2, trusted: true }));
    });

    it('backs off with ever longer pauses', async () => {
      const server = await privateRedis();
      await server.kill('SIGKILL');
      const relay = lendRelay({ db, cache, url: server.url, bumpDeadlineMs: 1, pollMs: 1 });
      let attempts = 0;
      relay.on('failure', ({ operation }) => operation === 'relay' && attempts++);
      const startedAtMs = performance.now();
      await eventually(() => expect(attempts).to.equal(8)); // 1 + 2 + 4 + ... ms, half of it at least
      expect(performance.now() - startedAtMs).to.be.greaterThan(60);
    });
  });

  it('logs the reason of a failure without the SQL before it', async () => {
    const lines: string[] = [];
    const note = (line: string) => lines.push(line);
    const { db: far, proxy } = await lendProxied(schemaOf(db));
    const relay = lendRelay({ db: far, cache, log: { debug() {}, info: note, warn: note, error: note } });
    await trusting(relay);
    lines.length = 0;
    await db.raw('alter table gencache_outbox rename column held_by to kept_by');
    await eventually(() => expect(lines).to.have.length.at.least(1));
    expect(lines[0]).to.match(/^\w+: relay failed: column "held_by" does not exist$/);
    await db.raw('alter table gencache_outbox rename column kept_by to held_by');
    await trusting(relay);
    lines.length = 0;
    await proxy.dropReplies(); // cuts under a query
    await eventually(() => expect(lines).to.have.length.at.least(1));
    expect(lines[0]).to.match(/^\w+: relay failed: (Connection terminated unexpectedly|read ECONNRESET)$/);
    await trusting(relay);
  });

  it('retries while PostgreSQL is away, and goes on when it is back', async () => {
    const proxy = await startProxy(Number(new URL(databaseUrl()).port), { protocol: 'postgres' });
    const url = new URL(databaseUrl());
    url.port = String(proxy.port);
    const far = knex({ client: 'pg', connection: url.href, searchPath: [schemaOf(db)], pool: { min: 0, max: 3 } });
    lend({ what: 'the Knex of a proxy', close: () => far.destroy() });
    const relay = lendRelay({ db: far, cache });
    await trusting(relay);
    proxy.refuse();
    proxy.cut();
    await eventually(() => expect(relay.status.failures).to.be.greaterThan(1));
    await recordItems(2);
    await proxy.accept();
    await drained();
    await eventually(() => expect(relay.status).to.include({ events: 2, repairs: 1, trusted: true }));
  });

  for (const bounds of [[], [1_000]]) {
    it(`keeps \`trusted\` while it checks again, until a check fails, ${bounds.length > 0 ? 'with' : 'without'} a bound`, async () => {
      const { db: far, proxy } = await lendProxied(schemaOf(db));
      proxy.delayMs = 10;
      const relay = lendRelay({ db: far, cache, pollMs: 20, ...(bounds.length > 0 && { maxStalenessMs: bounds }) });
      await trusting(relay);
      const polls: boolean[] = [];
      relay.on('poll', (poll) => polls.push(poll.trusted));
      const samples: boolean[] = [];
      const sampling = setInterval(() => samples.push(relay.status.trusted), 1);
      lend({ what: 'a timer', close: async () => clearInterval(sampling) });
      await recordItems(3);
      await eventually(() => expect(polls.length).to.be.greaterThan(60));
      clearInterval(sampling);
      expect(samples.length).to.be.greaterThan(500);
      expect(new Set(samples)).to.deep.equal(new Set([true]));
      expect(new Set(polls)).to.deep.equal(new Set([true]));
      expect(relay.status).to.include({ events: 3, failures: 0 });
      proxy.refuse();
      proxy.cut();
      await eventually(() => expect(relay.status.failures).to.be.greaterThan(0));
      expect(relay.status.trusted).to.equal(false);
      await eventually(() => expect(relay.status.failures).to.be.greaterThan(2));
      expect(relay.status.trusted).to.equal(false);
      await proxy.accept();
      await trusting(relay);
    });
  }

  it('bumps again, and loses nothing, when its session ends between claim and commit', async () => {
    const proxy = await startProxy(Number(new URL(redisUrl()).port));
    const relay = lendRelay({ db, cache, url: proxy.url, bumpDeadlineMs: 10_000 });
    await trusting(relay);
    const bumps = await mint(['item=0', 'item=1']);
    proxy.holdReplies();
    await recordItems(2);
    await eventually(async () => expect(await bumps()).to.deep.equal([1, 1]));
    await db.raw(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = ? and state = 'idle in transaction'`,
      [schemaOf(db)],
    );
    proxy.releaseReplies();
    await drained();
    expect(await bumps()).to.deep.equal([2, 2]);
    await eventually(() => expect(relay.status.events).to.equal(2));
  });

  describe('when it is stopped', () => {
    it('finishes its claim, claims no more and closes its store, once for several calls', async () => {
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const relay = lendRelay({ db, cache, url: proxy.url, batchMax: 5, bumpDeadlineMs: 10_000 });
      await trusting(relay);
      const bumps = await mint(Array.from({ length: 12 }, (_, i) => `item=${i}`));
      proxy.hold();
      await recordItems(12);
      const before = relay.status.events;
      await eventually(async () => expect(await idleInTransaction()).to.equal(1));
      const stopped = relay.stop();
      expect(relay.stop()).to.equal(stopped);
      proxy.release();
      await stopped;
      expect(before).to.equal(0);
      expect(relay.status.events).to.equal(5);
      expect(await waiting()).to.have.length(7);
      expect((await bumps()).filter((times) => times === 1)).to.have.length(5);
      await eventually(() => expect(proxy.connections).to.equal(0));
      expect(relay.stop()).to.equal(stopped);
    });

    it('resolves within its deadline while Redis does not reply, and gives its claim back', async () => {
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const relay = lendRelay({ db, cache, url: proxy.url, bumpDeadlineMs: 1_000, stopDeadlineMs: 50 });
      await trusting(relay);
      proxy.hold();
      await recordItems(2);
      await eventually(async () => expect(await idleInTransaction()).to.equal(1));
      await relay.stop();
      expect(await waiting()).to.have.length(2);
      const other = lendRelay({ db, cache });
      await drained();
      await eventually(() => expect(other.status.events).to.equal(2));
    });

    it('resolves at once during a pause', async () => {
      const relay = lendRelay({ db, cache, pollMs: 3_600_000 });
      await trusting(relay);
      await relay.stop();
    });

    it('resolves before its first turn', async () => {
      await lendRelay({ db, cache, listen: true }).stop();
    });
  });

  it('runs on the in-memory store of an application’s cache, which outlives it', async () => {
    const store = memoryStore();
    const shop = new GenerationalCache({ name: cache, store, source: knexSource(db) });
    lend({ what: 'a cache', close: () => shop.close() });
    let loads = 0;
    const items = shop.namespace('item', integer());
    const value = items.one('value', {
      load: async (ids) => ids.map(({ item }) => ({ item, load: ++loads })),
      by: ({ item }) => ({ item }),
      value: ({ load }) => load,
    });
    const relay = lendRelay({ db, cache, store });
    await trusting(relay);
    expect(await value.fetch({ item: 1 })).to.equal(1);
    await shop.settled();
    expect(await value.fetch({ item: 1 })).to.equal(1);
    await record(['item=1']);
    await drained();
    expect(await value.fetch({ item: 1 })).to.equal(2);
    await relay.stop();
    await shop.settled();
    expect(await value.fetch({ item: 1 })).to.equal(2);
  });

  describe('with an empty outbox', () => {
    /** What ten polls cost. */
    async function tenPolls(options: { maxStalenessMs?: number }) {
      const server = await privateRedis();
      const relay = lendRelay({ db, cache, url: server.url, pollMs: 10, ...options });
      await trusting(relay);
      const ten = deferred();
      const queries: string[] = [];
      const note = ({ sql }: { sql: string }) => queries.push(sql.trim().split(' ', 1)[0]!);
      const { commands } = await recordCommands(
        server.url,
        async () => {
          await new Promise((resolve) => relay.on('poll', resolve));
          db.on('query', note);
          let polls = 0;
          relay.on('poll', () => ++polls === 10 && (db.removeListener('query', note), ten.resolve()));
          await ten.promise;
          await relay.stop();
        },
        { keyless: true },
      );
      return {
        queries,
        commands: commands.map(([name]) => name!).filter((name) => !['INFO', 'CLIENT'].includes(name)),
      };
    }

    it('costs two queries a poll, and one query and two commands a second', async () => {
      const { queries, commands } = await tenPolls({});
      const claims = queries.filter((verb) => verb !== 'with'); // surveys: at most once or twice in this time
      expect(queries.length - claims.length).to.be.at.most(2);
      expect(claims.length).to.be.within(16, 20);
      expect(claims).to.deep.equal(claims.map((_, i) => (i % 2 === 0 ? 'BEGIN;' : 'COMMIT;'))); // a claim that finds nothing
      expect(commands.length).to.be.at.most(4); // TIME, renew: as often as surveys
    });

    it('costs one query and two commands a poll with a bound', async () => {
      const { queries, commands } = await tenPolls({ maxStalenessMs: 60_000 });
      expect(queries).to.deep.equal(Array(10).fill('with'));
      expect(commands.length).to.be.within(20, 26); // ten to a dozen polls, of each:
      expect(commands.filter((name) => name === 'TIME').length).to.be.within(10, 13); // the store's clock
      expect(commands.filter((name) => name === 'EVALSHA').length).to.be.within(9, 13); // renew
    });
  });

  describe('that listens', () => {
    it('polls at once after a hint', async () => {
      await notifyRelays(db, true);
      const relay = lendRelay({ db, cache, pollMs: 3_600_000, listen: true });
      await listening(1);
      await trusting(relay);
      for (let round = 1; round <= 5; round++) {
        await recordItems(1);
        await drained();
      }
      await eventually(() => expect(relay.status.events).to.equal(5));
    });

    it('polls again at once after a hint during a turn', async () => {
      await notifyRelays(db, true);
      const proxy = await startProxy(Number(new URL(redisUrl()).port));
      const relay = lendRelay({ db, cache, url: proxy.url, pollMs: 3_600_000, listen: true, bumpDeadlineMs: 10_000 });
      await listening(1);
      await trusting(relay);
      proxy.hold();
      await record(['item=1']);
      await eventually(async () => expect(await idleInTransaction()).to.equal(1));
      await record(['item=2']);
      proxy.release();
      await drained();
      await eventually(() => expect(relay.status.events).to.equal(2));
    });

    it('ignores hints of other caches', async () => {
      await notifyRelays(db, true);
      const relay = lendRelay({ db, cache, pollMs: 3_600_000, listen: true });
      await listening(1);
      await trusting(relay);
      let polls = 0;
      relay.on('poll', () => polls++);
      for (let i = 0; i < 20; i++) await record(['item=1'], db, 'another');
      await record(['item=1']);
      await drained();
      expect(polls).to.be.within(1, 4); // its own event, an empty turn after it, and what LISTEN may have missed
    });

    it('opens another connection after a lost one, and polls at once', async () => {
      await notifyRelays(db, true);
      const relay = lendRelay({ db, cache, pollMs: 3_600_000, listen: true });
      await listening(1);
      await trusting(relay);
      await db.raw(
        `select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen gencache' and application_name = ?`,
        [schemaOf(db)],
      );
      await listening(0);
      await recordItems(1);
      await drained();
      await listening(1);
      expect(relay.status.failures).to.equal(0);
    });

    const listening = (times: number) =>
      eventually(async () => {
        const { rows } = await db.raw(
          `select from pg_stat_activity where query = 'listen gencache' and application_name = ?`,
          [schemaOf(db)],
        );
        expect(rows).to.have.length(times);
      });

    it('polls without hints', async () => {
      const relay = lendRelay({ db, cache, pollMs: 20, listen: true });
      await recordItems(1);
      await drained();
      await eventually(() => expect(relay.status.events).to.equal(1));
    });
  });

  describe('with an event that a migration holds', () => {
    const hold = (path: string, heldBy: string) =>
      db('gencache_outbox').insert({ cache, path, held_by: heldBy, source: 'm', operation: 'migration' });

    it('bumps the event again and again while the lock is taken, once after, and then deletes it', async () => {
      await db.raw('create table if not exists lock (is_locked int)');
      await db('lock').insert({ is_locked: 1 });
      const bumps = await mint(['item=1', 'item=1/part=1']);
      await hold('item=1', 'lock');
      await hold('item=1/part=1', 'lock');
      const relay = lendRelay({ db, cache });
      await eventually(async () => expect((await bumps())[0]).to.be.greaterThan(1));
      expect(await waiting()).to.have.length(2);
      const [before] = await bumps();
      await db('lock').update({ is_locked: 0 });
      await drained();
      const [after, below] = await bumps();
      expect(after).to.be.greaterThan(before!);
      expect(below).to.equal(0); // covered
      expect(relay.status).to.include({ events: 2, failures: 0, deadLetters: 0 });
    });

    it('takes a lock without its table, or without its schema, for free', async () => {
      await hold('item=1', 'gone');
      await hold('item=2', 'gone.gone');
      lendRelay({ db, cache });
      await drained();
    });

    it('relays other events meanwhile', async () => {
      await db.raw('create table if not exists lock (is_locked int)');
      await db('lock').insert({ is_locked: 1 });
      await hold('', 'lock');
      const relay = lendRelay({ db, cache });
      await recordItems(3);
      await eventually(() => expect(relay.status.events).to.equal(3));
      expect(await waiting()).to.deep.equal(['']);
    });

    it('bumps the event, and reports the lock, when it may not read the lock', async () => {
      await db.raw('create table no_lock (is_locked text[])');
      const bumps = await mint(['item=1', 'item=2']);
      await hold('item=1', 'no_lock');
      await hold('item=2', 'not a name"');
      const relay = lendRelay({ db, cache });
      const held = deferred<RelayEvents['heldByMigration'][0]>();
      relay.on('heldByMigration', held.resolve);
      const { locks } = await held.promise;
      expect(locks.map(({ table, error }) => [table, error!.message.replace(/^.* - /s, '')]).sort()).to.deep.equal([
        ['no_lock', 'operator does not exist: text[] = integer'],
        ['not a name"', 'invalid name syntax'],
      ]);
      await eventually(async () => expect(Math.min(...(await bumps()))).to.be.at.least(2));
      expect(await waiting()).to.deep.equal(['item=1', 'item=2']);
      expect(relay.status).to.include({ deadLetters: 0, failures: 0 });
    });

    it('reads a lock whose name needs quoting', async () => {
      const table = 'a?b :c "d"';
      await db.raw(`create table "a\\?b :c ""d""" (is_locked int)`);
      await db.raw(`insert into "a\\?b :c ""d""" values (1)`);
      await hold('item=1', `"${table.replaceAll('"', '""')}"`);
      const bumps = await mint(['item=1']);
      const relay = lendRelay({ db, cache });
      await eventually(async () => expect((await bumps())[0]).to.be.greaterThan(1));
      expect(await waiting()).to.have.length(1);
      await db.raw(`drop table "a\\?b :c ""d"""`);
      await drained();
      expect(relay.status.deadLetters).to.equal(0);
    });
  });

  describe('whose server is not authoritative', () => {
    const POSTGRES = 'another postgres';

    /** A store of this relay's own, and who it is. */
    async function lendStore(): Promise<{ store: Store; redis: string }> {
      const store = redisStore(lendRedis());
      lend({ what: 'a store', close: () => store.close() });
      return { store, redis: await eventually(() => store.incarnation ?? expect.fail('not open')) };
    }

    const limits = { bumpDeadlineMs: 1_000, silenceMaxMs: 10_000, outbox: {}, onForeign() {} };
    const claim = (redis: string, seen?: Epoch, postgres = POSTGRES) =>
      claimAuthority(db, { redis, postgres }, { cache, seen, outbox: {} });

    it('rejects the batch and deletes no event', async () => {
      const { store, redis } = await lendStore();
      await claim('another');
      await record(['item=1']);
      const bumps = await mint(['item=1']);
      const error = await rejection(
        relayBatch({ db, partitions: new Partitions(store, cache), cache, ...limits }, EVERYWHERE, 10),
      );
      expect(error).to.be.instanceOf(DisplacedError);
      expect(error.message).to.equal(
        `The bumps went to a Redis that is not the authoritative one (${redis}, not another): it has failed over, or ` +
          'another relay of this cache uses another Redis. The events stay in the outbox; a relay bumps them again.',
      );
      expect(await bumps()).to.deep.equal([1]);
      expect(await waiting()).to.deep.equal(['item=1']);
    });

    it('does not wait after a claim of its own: Redis restarts twice within five seconds', async () => {
      const server = await privateRedis();
      const causes: string[] = [];
      const relay = lendRelay({ db, cache, url: server.url });
      relay.on('repair', ({ cause }) => causes.push(cause));
      await trusting(relay);
      for (const repairs of [2, 3]) {
        await server.restart();
        const upAtMs = performance.now();
        await eventually(() => expect(relay.status).to.include({ repairs, trusted: true }));
        expect(performance.now() - upAtMs).to.be.lessThan(4_500); // and not the five seconds of a turn
      }
      expect(causes).to.deep.equal(['first', 'store', 'store']);
    });

    it('waits before it takes authority, and then bumps global', async () => {
      await claim('another');
      const bumps = await mint(['']);
      const causes: string[] = [];
      const relay = lendRelay({ db, cache });
      relay.on('repair', ({ cause }) => causes.push(cause));
      for (let polls = 0; polls < 5; polls++) await new Promise((resolve) => relay.on('poll', resolve));
      expect(relay.status).to.include({ trusted: false, repairs: 0 });
      await db('gencache_authority').update({ changed_at: db.raw(`now() - interval '1 minute'`) });
      await trusting(relay);
      expect(causes).to.deep.equal(['store']);
      expect(await bumps()).to.deep.equal([1]);
    });

    it('does not take the mark of an earlier epoch for the repair of this one', async () => {
      const first = lendRelay({ db, cache });
      await trusting(first);
      await first.stop();
      const bumps = await mint(['']);
      // Another relay, on another server, is counted, and deletes events for bumps that this server never gets.
      const seen = async () => (await surveyOutbox(db, { cache, ranges: EVERYWHERE, outbox: {} })).authority!;
      const { redis, postgres } = await seen();
      await claim('another', await seen(), postgres);
      // One on this server is counted again, and dies before it repairs.
      await claim(redis, await seen(), postgres);
      const next = lendRelay({ db, cache });
      const causes: string[] = [];
      next.on('repair', ({ cause }) => causes.push(cause));
      await trusting(next);
      expect(causes).to.deep.equal(['mark']);
      expect(await bumps()).to.deep.equal([1]);
    });

    it('does not take authority over an epoch that began after its survey', async () => {
      const one = await claim('one');
      expect(await claim('two')).to.equal(undefined);
      const two = await claim('two', one);
      expect(two).to.include({ redis: 'two', postgres: POSTGRES });
      expect(await claim('three', one)).to.equal(undefined);
    });

    it('waits for transactions that delete events under the old epoch before it takes authority', async () => {
      const one = await claim('one');
      const deleting = await db.transaction();
      await deleting.raw('select redis from gencache_authority where cache = ? for share', [cache]);
      let counted = false;
      const counting = claim('two', one).then((epoch) => {
        counted = true;
        return epoch;
      });
      await eventually(async () => {
        const { rows } = await db.raw(
          `select from pg_stat_activity where wait_event_type = 'Lock' and application_name = ?`,
          [schemaOf(db)],
        );
        expect(rows).to.have.length(1);
      });
      expect(counted).to.equal(false);
      await deleting.commit();
      expect(await counting).to.include({ redis: 'two' });
    });
  });

  it('relays where transactions are serializable by default', async () => {
    const strict = knex({
      client: 'pg',
      connection: `${databaseUrl()}?options=${encodeURIComponent('-c default_transaction_isolation=serializable')}`,
      searchPath: [schemaOf(db)],
      pool: { min: 0, max: 5 },
    });
    lend({ what: 'a serializable Knex', close: () => strict.destroy() });
    const first = `select current_setting('transaction_isolation') as isolation, current_setting('synchronous_commit') as waits,
      current_setting('idle_in_transaction_session_timeout') as silence`;
    const settings = await inBumpTransaction(strict, { silenceMaxMs: 1_234, first }, async (_, rows) => rows[0]);
    expect(settings).to.deep.equal({ isolation: 'read committed', waits: 'off', silence: '1234ms' });
    const relays = [1, 2, 3].map(() => lendRelay({ db: strict, cache, batchMax: 20, pollMs: 1 }));
    for (let i = 0; i < 20; i++) await recordItems(20);
    await drained();
    // A survey may be refused there, and is repeated.
    const relayed = () => relays.reduce((sum, { status }) => sum + status.events, 0);
    await eventually(() => expect(relayed()).to.equal(400));
  });

  it('logs its start, batches and dead letters', async () => {
    const lines: string[] = [];
    const write = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
    const log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
    lendRelay({ db, cache, log });
    await record(['item=1', 'item:2']);
    await drained();
    await eventually(() => expect(lines).to.have.length(3));
    const { rows } = await db.raw<{ rows: { xid: string; seq: string }[] }>(
      'select xid::text, seq::text from gencache_dead_letter',
    );
    expect(lines[0]).to.equal(`info ${cache}: relaying from now on; global bumped`);
    expect(lines[1]).to.match(
      new RegExp(`^debug ${cache}: relayed 2 events to 1 scopes in [0-9.]+ ms: 2 public.item UPDATE$`),
    );
    expect(lines[2]).to.equal(
      `error ${cache}: event ${rows[0]!.xid}/${rows[0]!.seq} is a dead letter, global was bumped for it: The path is invalid: "item:2".`,
    );
  });

  it('rejects invalid options', () => {
    const store = memoryStore();
    for (const [options, message] of [
      [{ pollMs: 0 }, 'pollMs must be an integer from 1 to 3600000, but got 0. Leave it out for the default.'],
      [{ batchMax: 1.5 }, 'batchMax must be an integer from 1 to 3600000, but got 1.5. Leave it out for the default.'],
      [
        { silenceMaxMs: 0 },
        'silenceMaxMs must be an integer from 1 to 3600000, but got 0. Leave it out for the default.',
      ],
      [
        { backlogMaxMs: Infinity },
        'backlogMaxMs must be an integer from 0 to 3600000, but got Infinity. Leave it out for the default.',
      ],
      [
        { stopDeadlineMs: -1 },
        'stopDeadlineMs must be an integer from 0 to 3600000, but got -1. Leave it out for the default.',
      ],
      [
        { maxStalenessMs: [1_000, 50] },
        'maxStalenessMs must be an integer from 100 to 3600000, but got 50. Leave it out for no bound.',
      ],
      [{ db: undefined as never }, 'A relay must have a Knex as `db` and a store as `store`, but got '],
      [{ cache: 'a b' }, 'The name of a cache must be 1 to 64 letters'],
      [{ schema: 'a?b' }, 'The `schema` of an outbox must be a name of 1 to 63 bytes'],
    ] as const) {
      expect(thrown(() => startRelay({ db, cache, store, ...options })).message).to.contain(message);
    }
  });
});

describe('hints, by NOTIFY', () => {
  it('make PREPARE TRANSACTION fail until they are switched off', async () => {
    const server = await privatePostgres({ settings: { max_prepared_transactions: '5' } });
    const db = knex({ client: 'pg', connection: server.url, pool: { min: 0, max: 5 } });
    lend({ what: 'its Knex', close: () => db.destroy() });
    await installOutbox(db);
    const prepare = async (name: string) => {
      const trx = await db.transaction();
      try {
        await trx.raw(`insert into gencache_outbox (cache, path, source, operation) values ('c', '', 's', 'o')`);
        await trx.raw(`prepare transaction '${name}'`);
      } finally {
        await trx.rollback();
      }
    };
    await notifyRelays(db, true);
    await Promise.all([notifyRelays(db, true), notifyRelays(db, true)]);
    expect((await rejection(prepare('one'))).message).to.contain('cannot PREPARE a transaction that has executed');
    await notifyRelays(db, false);
    await notifyRelays(db, false);
    await prepare('two');
    await db.raw(`commit prepared 'two'`);
    const { rows } = await db.raw(
      `select proname from pg_proc where proname like 'gencache_notify%' union all select tgname from pg_trigger where not tgisinternal`,
    );
    expect(rows).to.deep.equal([]);
  });
});
