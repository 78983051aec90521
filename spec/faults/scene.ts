/**
 * The installation under a fault: items in PostgreSQL, each with a version; a cache of them in Redis; processes that read,
 * write and relay; and an observer.
 *
 *     writers ----------> PostgreSQL: item, gencache_outbox <---- observer
 *     (gates)                 |            (gates)
 *                           relay --------------------------+
 *                                                           v
 *     readers, bounded and not ------- main gate -------> Redis
 *
 * After each fault `verify` judges. A spec controls the order of steps by holding requests, and waits for states that it
 * observes. No spec depends on a duration, except the bound itself.
 */
import { privatePostgres } from '../support/postgres.js';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Redis, type RedisOptions } from 'ioredis';
import knex, { type Knex } from 'knex';
import type { CacheSettings } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { installOutbox, startRelay } from '../../lib/knex/index.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { recordEvents } from '../../lib/knex/outbox/record.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import type { PostgresServer, PostgresServerOptions } from '../support/servers/postgres-server.js';
import type { RedisServer, RedisServerOptions } from '../support/servers/redis-server.js';
import { Gate } from './gate.js';
import { type Change, History, type Values } from './history.js';
import { GatedProgram } from './program.js';
import { SILENT } from './silent.js';
import { Reader } from './reader.js';
import { PLAIN } from './steps.js';

export interface Servers {
  readonly redis: RedisServer;
  readonly postgres: PostgresServer;
  /** Where the Sentinels of `redis` are: readers and relays in this process ask them, in place of the gate. */
  readonly sentinels?: Pick<RedisOptions, 'sentinels' | 'name'>;
}

/** Private servers, for faults; lent to the suite by a `before` hook, else to the spec. */
export async function lendServers(
  options: { redis?: RedisServerOptions; postgres?: PostgresServerOptions } = {},
): Promise<Servers> {
  const postgres = await privatePostgres(options.postgres);
  return { redis: await privateRedis(options.redis), postgres };
}

const OBSERVE_EVERY_MS = 2;
const POLL_MS = 20;
/** Options of a client that does not wait for a server that is down. */
const IMPATIENT = { connectTimeout: 300, commandTimeout: 300, retryStrategy: () => null, lazyConnect: true };

/** The polls and repairs that a relay has reported. */
export interface WatchedRelay {
  readonly polls: { readonly trusted: boolean; readonly lagMs: number }[];
  readonly repairs: string[];
}

export class Scene {
  readonly cache = uniqueName('fault');
  readonly schema = uniqueName('fault');
  readonly history = new History();
  readonly boundMs: number;
  readonly items: readonly number[];
  readonly db: Knex;
  /** The way to Redis of readers, and of relays in this process. */
  readonly gate: Gate;
  readonly postgres: PostgresServer;
  readonly #sentinels: Servers['sentinels'];
  readonly #readers: Reader[] = [];
  readonly #known = new Map<number, Values>();
  #closed = false;

  static async open(servers: Servers, options: { boundMs?: number; items?: number } = {}): Promise<Scene> {
    const { boundMs = 1_000, items = 2 } = options;
    const { postgres, redis, sentinels } = servers;
    const scene = new Scene({ postgres, gate: await Gate.open(redis.port), sentinels, boundMs, items });
    await scene.#install();
    return scene;
  }

  private constructor({
    postgres,
    gate,
    sentinels,
    boundMs,
    items,
  }: {
    readonly postgres: PostgresServer;
    readonly gate: Gate;
    readonly sentinels: Servers['sentinels'];
    readonly boundMs: number;
    readonly items: number;
  }) {
    this.gate = gate;
    this.#sentinels = sentinels;
    this.postgres = postgres;
    this.boundMs = boundMs;
    this.items = Array.from({ length: items }, (_, i) => i + 1);
    this.db = this.#knex();
  }

  /** Starts a relay in this process. */
  relay(url?: string): WatchedRelay {
    const watched: WatchedRelay = { polls: [], repairs: [] };
    const store = redisStore(this.#redis(url));
    const relay = startRelay({
      ...{ cache: this.cache, db: this.#knex(), store, maxStalenessMs: this.boundMs, pollMs: POLL_MS },
      stopDeadlineMs: 2_000,
    });
    relay.on('poll', (poll) => watched.polls.push(poll));
    relay.on('repair', ({ cause }) => watched.repairs.push(cause));
    lend({ what: 'a relay', close: () => relay.stop() });
    return watched;
  }

  /** A process that reaches each server through a gate of its own. */
  program(): Promise<GatedProgram> {
    return GatedProgram.open({ redis: this.gate.targetPort, postgres: this.postgres.port });
  }

  /** Starts a relay in a process of its own. */
  runRelay(program: GatedProgram, options: { readonly backlogMaxMs?: number } = {}): WatchedRelay {
    const watched: WatchedRelay = { polls: [], repairs: [] };
    program.run('relay', this, { boundMs: this.boundMs, pollMs: POLL_MS, ...options });
    const follow = async () => {
      for (;;) {
        const line = await program.line<{ kind: string; trusted: boolean; lagMs: number; cause: string }>();
        if (line.kind === 'poll') watched.polls.push(line);
        if (line.kind === 'repair') watched.repairs.push(line.cause);
      }
    };
    follow().catch(() => {}); // the program was killed
    return watched;
  }

  /** A scene with a relay in a process of its own, at work by now, and readers with and without a bound. */
  static async relayed(servers: Servers, options: { readonly backlogMaxMs?: number } = {}) {
    const scene = await Scene.open(servers);
    const program = await scene.program();
    const relay = scene.runRelay(program, options);
    const bounded = scene.reader();
    const unbounded = scene.reader({ bounded: false });
    await scene.settled(relay);
    return { scene, program, relay, bounded, unbounded };
  }

  /** Starts a writer in a process of its own, which changes one item. */
  runWriter(
    program: GatedProgram,
    item: number,
    { strict = false, bumps = [item] }: { strict?: boolean; bumps?: number[] } = {},
  ): Change {
    const change = this.history.begin(item, strict);
    const note = async () => void change.before.push(await this.values(item));
    program.before(PLAIN.BEGIN, note);
    program.before(PLAIN.COMMIT, async () => {
      await note();
      change.sentMs = performance.now();
    });
    program.run('writer', this, { item, version: change.version, bumps, strict });
    return change;
  }

  /** Starts a reader, which runs until the end of the spec; `verify` judges its reads. */
  reader({
    bounded = true,
    url,
    local,
  }: { bounded?: boolean; url?: string; local?: CacheSettings['local'] } = {}): Reader {
    const reader = new Reader({
      ...{ name: this.cache, db: this.db, redis: this.#redis(url), items: this.items },
      boundMs: bounded ? this.boundMs : undefined,
      ...(local && { local }),
    });
    this.#readers.push(reader);
    return reader;
  }

  /** Changes an item and records the event, as a trigger does, and commits. `held` runs before COMMIT is sent. */
  async change(item: number, held: () => Promise<void> = async () => {}): Promise<Change> {
    const before = await this.values(item);
    return this.#change(item, async (change) => {
      await held();
      change.before.push(before, await this.values(item));
    });
  }

  /** Changes an item in a transaction of this process, which bumps by itself. Returns the outcome of the bump. */
  async transact(item: number, { cache, namespace }: Reader): Promise<string> {
    const change = this.history.begin(item);
    const { bump } = await cache.transaction(async (trx) => {
      await trx('item').where({ id: item }).update({ version: change.version });
      await namespace.bump({ item }, { trx });
      change.sentMs = performance.now();
    });
    change.committedMs = performance.now();
    return bump;
  }

  /** Changes an item many times, without notes of its generations. */
  async changeOften(item: number, times: number): Promise<void> {
    for (let i = 0; i < times; i++) await this.#change(item, async () => {});
  }

  async #change(item: number, held: (change: Change) => Promise<void>): Promise<Change> {
    const change = this.history.begin(item);
    const trx = await this.db.transaction();
    try {
      await trx('item').where({ id: item }).update({ version: change.version });
      await this.record(trx, [`item=${item}`]);
      await held(change);
    } catch (error) {
      await trx.rollback().catch(() => {});
      throw error;
    }
    change.sentMs = performance.now();
    // Knex resolves commit() in any case; this promise has the server's answer.
    void trx.commit();
    await trx.executionPromise;
    change.committedMs = performance.now();
    return change;
  }

  async record(trx: Knex, paths: readonly string[]): Promise<void> {
    const events = paths.map((path) => ({ cache: this.cache, path, source: 'item', operation: 'UPDATE' }));
    await recordEvents(trx, events);
  }

  async changeAll(): Promise<void> {
    for (const item of this.items) await this.change(item);
  }

  /** The values of an item's generations; while Redis is away, the last known ones. */
  async values(item: number): Promise<Values> {
    const redis = new Redis(this.gate.targetPort, '127.0.0.1', IMPATIENT);
    redis.on('error', () => {});
    const prefix = keyPrefix(this.cache);
    try {
      this.#known.set(item, await redis.mget(generationKey(prefix, ''), generationKey(prefix, `item=${item}`)));
    } catch {
      // Redis is away: the last known values stay.
    } finally {
      redis.disconnect();
    }
    return this.#known.get(item) ?? [null, null];
  }

  /** The version of each item in PostgreSQL. */
  async versions(): Promise<Map<number, number>> {
    const rows = await this.db<{ id: number; version: number }>('item').select('id', 'version');
    return new Map(rows.map(({ id, version }) => [id, version]));
  }

  /** Ends every session that is in a transaction and waits for its client (pg_terminate_backend). */
  async endSessions(): Promise<void> {
    await this.db.raw(
      `select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction' and query !~ 'terminate'`,
    );
  }

  /** Makes the present epoch an hour older, so that another server may become authoritative at once. */
  async ageEpoch(): Promise<void> {
    await this.db('gencache_authority').update({ changed_at: this.db.raw(`changed_at - interval '1 hour'`) });
  }

  /** Makes the events that wait an hour older, and the present epoch even older. */
  async ageEvents(): Promise<void> {
    await this.db('gencache_outbox').update({ recorded_at: this.db.raw(`recorded_at - interval '1 hour'`) });
    await this.db('gencache_authority').update({ changed_at: this.db.raw(`changed_at - interval '2 hours'`) });
  }

  async waiting(): Promise<number> {
    const rows = await this.db('gencache_outbox').where({ cache: this.cache });
    return rows.length;
  }

  /** Resolves when the relay has polled twice from now, trusted and without a lag. */
  async relayed(relay: WatchedRelay, withinMs = 30_000): Promise<void> {
    const from = relay.polls.length;
    await eventually(
      () => {
        const since = relay.polls.slice(from);
        const calm = since.slice(-2).filter(({ trusted, lagMs }) => trusted && lagMs === 0);
        expect({ calm: calm.length, polls: since.slice(-3) }).to.include({ calm: 2 });
      },
      { withinMs },
    );
  }

  /** Resolves when the relay is at work and all readers, `except` excluded, hit all items. */
  async settled(relay: WatchedRelay, except?: Reader): Promise<void> {
    await this.relayed(relay);
    await Promise.all(this.#readers.filter((reader) => reader !== except).map((reader) => reader.hitting()));
  }

  /**
   * Judges after the fault. Once the relay has drained the outbox, every new read returns the committed version; every
   * scope that a commit changed has new generations; no earlier read was older than its step of the ladder allows; and
   * readers hit the cache again.
   */
  async verify(relay: WatchedRelay, { strict = false, hit = true } = {}): Promise<void> {
    await this.relayed(relay);
    expect(await this.waiting(), 'events that wait').to.equal(0);
    const committed = await this.versions();
    for (const reader of this.#readers) {
      for (const { item, version } of await reader.read()) {
        expect(version, `item ${item}, read when all is over`).to.equal(committed.get(item));
      }
    }
    for (const item of this.items) this.history.judgeGenerations(item, await this.values(item));
    if (hit) await Promise.all(this.#readers.map((reader) => reader.hitting()));
    for (const reader of this.#readers) {
      // Without hits the judgement would be empty.
      expect(reader.hits, 'hits').to.be.above(0);
      const reads = reader.takeReads();
      if (reader.boundMs !== undefined) this.history.judgeBound(reads, reader.boundMs);
      if (strict) this.history.judgeStrict(reads);
    }
  }

  /** A client of this server; else of the Sentinels, if there are some, else of the gate. */
  #redis(url?: string): Redis {
    if (url === undefined && this.#sentinels) return lendRedis({ ...this.#sentinels, lazyConnect: true });
    return lendRedis({ url: url ?? `redis://127.0.0.1:${this.gate.port}`, lazyConnect: true });
  }

  #knex(): Knex {
    const db = knex({
      client: 'pg',
      connection: this.postgres.url,
      searchPath: [this.schema],
      pool: { min: 0, max: 10 },
      acquireConnectionTimeout: 5_000,
      log: SILENT,
    });
    const pool = () => (db.client as { pool?: { numUsed(): number; numFree(): number } }).pool;
    lend({
      what: 'a Knex',
      sockets: () => (pool()?.numUsed() ?? 0) + (pool()?.numFree() ?? 0),
      close: () => db.destroy(),
    });
    return db;
  }

  async #install(): Promise<void> {
    await this.db.raw('create schema ??', [this.schema]);
    await this.db.schema.createTable('item', (table) => {
      table.integer('id').primary();
      table.integer('version').notNullable();
    });
    await this.db('item').insert(this.items.map((id) => ({ id, version: 0 })));
    await installOutbox(this.db);
    const observer = this.#knex();
    const observing = this.#observe(observer);
    lend({
      what: 'the observer',
      close: async () => {
        this.#closed = true;
        await observing;
      },
    });
    await eventually(() => expect(this.history.seen(1)).to.equal(0));
  }

  async #observe(db: Knex): Promise<void> {
    while (!this.#closed) {
      const rows: { id: number; version: number }[] = await db('item')
        .select('id', 'version')
        .catch(() => []);
      const answeredMs = performance.now();
      for (const { id, version } of rows) this.history.observe(id, version, answeredMs);
      await sleep(OBSERVE_EVERY_MS);
    }
  }
}
