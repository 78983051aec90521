import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Redis } from 'ioredis';
import type { Knex } from 'knex';
import { installOutbox, onChangeOf, QuarantineError, type Relay, startRelay } from '../../lib/knex/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { lendDatabase } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';
import { Application } from './application.js';
import type { LadderStep } from './ladder.js';
import type { Refused } from './outages.js';

const ITEMS = 10;
/** Of each application. */
const READERS = 10;
const LOADS_MAX = 4;
const WRITE_EVERY_MS = 20;
const OBSERVE_EVERY_MS = 10;
const POLL_MS = 20;
/** Where writes to Redis may fail: short, so that several fail during one outage. */
const SHORT_DEADLINE_MS = 300;
/** Where they may not: a busy machine makes none fail. */
const LONG_DEADLINE_MS = 10_000;
const HANG_MS = 15_000;
const FURTHER_WRITES = 3;

interface InstallationOptions {
  readonly step: LadderStep;
  /** The URL of Redis. */
  readonly url: string;
  readonly refuses: Refused;
}

/**
 * Items with a version each in PostgreSQL, on one step of the ladder: 20 readers in two applications, a writer in one of
 * them, a relay if the step has one, and an observer of the outbox.
 */
export class Installation {
  readonly db: Knex;
  /** The application that writes. */
  readonly writing: Application;
  /** Another one, which learns of changes by Redis alone. */
  readonly reading: Application;
  readonly #cache = uniqueName('outage');
  readonly #options: InstallationOptions;
  readonly #bumpDeadlineMs: number;
  readonly #seenAtMs = new Map<string, number>();
  readonly #over = new AbortController();
  readonly #writesOver = new AbortController();
  #relay: { readonly relay: Relay; readonly client: Redis } | undefined;
  #readers: Promise<unknown> = Promise.resolve();
  #writer: Promise<unknown> = Promise.resolve();
  #observer: Promise<unknown> = Promise.resolve();
  #writes = 0;
  #refusals = 0;
  #longestWriteMs = 0;

  static async open(options: InstallationOptions): Promise<Installation> {
    const installation = new Installation(await lendDatabase(), options);
    await installation.#install();
    return installation;
  }

  private constructor(db: Knex, options: InstallationOptions) {
    this.db = db;
    this.#options = options;
    this.#bumpDeadlineMs = options.refuses === 'writes' ? SHORT_DEADLINE_MS : LONG_DEADLINE_MS;
    const application = () =>
      new Application({
        ...{ name: this.#cache, db, url: options.url, items: ITEMS, loadsMax: LOADS_MAX },
        ...{ bumpDeadlineMs: this.#bumpDeadlineMs, boundMs: options.step.boundMs },
      });
    this.writing = application();
    this.reading = application();
  }

  get both(): readonly Application[] {
    return [this.writing, this.reading];
  }

  /** Notes that Redis took no write; throws where it is to take it. */
  readonly refused = (error: unknown): void => {
    const { refuses } = this.#options;
    if (refuses !== 'writes' && !(refuses === 'quarantines' && error instanceof QuarantineError)) throw error;
    this.#refusals++;
  };

  /** When the observer saw this version first, as far as it did; else now. */
  readonly seenAtMs = (item: number, version: number): number =>
    this.#seenAtMs.get(`${item} ${version}`) ?? performance.now();

  /** Starts readers and the writer, once both applications hit. */
  async start(): Promise<void> {
    if (this.#options.step.hasOutbox) this.#startRelay();
    await Promise.all(this.both.map((application) => application.hitting()));
    if (this.#options.step.hasOutbox) await this.#ageEpoch();
    const readers = this.both.flatMap((application) =>
      Array.from({ length: READERS }, () => application.read(this.#over.signal)),
    );
    this.#readers = kept(Promise.all(readers));
    this.#observer = kept(this.#observe());
    this.#writer = kept(this.#write());
    await eventually(() => expect(this.#writes).to.be.above(FURTHER_WRITES));
  }

  /** How many reads have ended, and how many writes Redis refused. */
  get progress(): { readonly reads: number; readonly refusals: number } {
    return { reads: this.both.reduce((sum, { reads }) => sum + reads.length, 0), refusals: this.#refusals };
  }

  /** Resolves when the installation works again as before: writes, then everything is bumped, then hits alone. */
  async recover(): Promise<void> {
    const writes = this.#writes;
    await this.#while(
      eventually(() => {
        expect(this.#writes).to.be.above(writes + FURTHER_WRITES);
        // While there are misses: an open breaker of fills waits for one.
        for (const { cache } of this.both) expect(cache.state.fills.isUp).to.equal(true);
      }),
    );
    this.#writesOver.abort();
    await this.#writer;
    await this.#while(
      eventually(async () => {
        expect(await this.#waiting(), 'events that wait').to.equal(0);
        expect(this.writing.cache.state.unbumped, 'bumps that are missing').to.equal(0);
      }),
    );
    const versions = await this.db('item').orderBy('id').pluck<number[]>('version');
    for (const application of this.both) {
      expect(await application.readAll(), 'versions, when all is over').to.deep.equal(versions);
    }
    await this.#while(Promise.all(this.both.map((application) => application.hitting())));
    this.#over.abort();
    await Promise.all([this.#readers, this.#observer]);
  }

  /** Judges reads and writes. */
  judge(): void {
    for (const application of this.both) application.judge();
    expect(this.#longestWriteMs, 'the longest write, in ms').to.be.below(HANG_MS);
  }

  /** Ends everything that still runs, and closes caches and clients. Asserts that the caches leave nothing. */
  async close(): Promise<void> {
    this.#over.abort();
    this.#writesOver.abort();
    await Promise.allSettled([this.#readers, this.#observer, this.#writer]);
    await this.#relay?.relay.stop();
    this.#relay?.client.disconnect();
    await Promise.all(this.both.map((application) => application.close()));
    await this.db.destroy();
  }

  async #install(): Promise<void> {
    const { db } = this;
    await db.schema.createTable('item', (table) => {
      table.integer('id').primary();
      table.integer('version').notNullable();
    });
    await db('item').insert(Array.from({ length: ITEMS }, (_, id) => ({ id, version: 1 })));
    const { hasOutbox, hasTriggers } = this.#options.step;
    if (hasOutbox) await installOutbox(db);
    if (hasTriggers) await onChangeOf(db, 'item', { cache: this.#cache }).bump({ item: 'id' }).install();
  }

  #startRelay(): void {
    const { url, step } = this.#options;
    const client = new Redis(url, { lazyConnect: true });
    const relay = startRelay({
      ...{ cache: this.#cache, db: this.db, store: redisStore(client), pollMs: POLL_MS, stopDeadlineMs: 2_000 },
      bumpDeadlineMs: this.#bumpDeadlineMs,
      ...(step.boundMs !== undefined && { maxStalenessMs: step.boundMs }),
    });
    lend({ what: 'a relay', close: () => relay.stop() });
    this.#relay = { relay, client };
  }

  /** Makes the present epoch an hour older, so that Redis may become authoritative at once when it is another one. */
  async #ageEpoch(): Promise<void> {
    await this.db('gencache_authority').update({ changed_at: this.db.raw(`changed_at - interval '1 hour'`) });
  }

  async #write(): Promise<void> {
    while (!this.#writesOver.signal.aborted) {
      const beganMs = performance.now();
      const refusals = this.#refusals;
      await this.#options.step.change(this, Math.floor(Math.random() * ITEMS));
      if (this.#refusals === refusals) this.#writes++;
      this.#longestWriteMs = Math.max(this.#longestWriteMs, performance.now() - beganMs);
      await sleep(WRITE_EVERY_MS);
    }
  }

  /** Notes when each version became visible, and that it is bumped: it has no event, in one snapshot. */
  async #observe(): Promise<void> {
    const waits = this.#options.step.hasOutbox
      ? this.db.raw(`exists (select from gencache_outbox where path in ('', 'item=' || item.id))`)
      : this.db.raw('true');
    while (!this.#over.signal.aborted) {
      const rows = await this.db<{ id: number; version: number }>('item').select('id', 'version', { waits });
      const answeredMs = performance.now();
      for (const { id, version, waits } of rows as { id: number; version: number; waits: boolean }[]) {
        const key = `${id} ${version}`;
        if (!this.#seenAtMs.has(key)) this.#seenAtMs.set(key, answeredMs);
        if (waits) continue;
        for (const { promises } of this.both) promises.add(id, version, 'the end of its event', answeredMs);
      }
      await sleep(OBSERVE_EVERY_MS);
    }
  }

  async #waiting(): Promise<number> {
    if (!this.#options.step.hasOutbox) return 0;
    const rows = await this.db('gencache_outbox').select('seq');
    return rows.length;
  }

  /** Waits, but rejects as soon as a reader, the writer or the observer has failed. */
  async #while(waiting: Promise<unknown>): Promise<void> {
    const failing = [this.#readers, this.#writer, this.#observer].map((running) =>
      running.then(() => new Promise<never>(() => {})),
    );
    await Promise.race([waiting, ...failing]);
  }
}

/** A promise that is awaited later: its rejection is not unhandled until then. */
function kept<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
