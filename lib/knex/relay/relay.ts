import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { checkCacheName } from '../../model/cache-name.js';
import { describe } from '../../errors/describe.js';
import { endsWithin } from '../../async/ends-within.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { Logger } from '../../telemetry/log.js';
import { wholeNumber } from '../../errors/option-checks.js';
import { checkBound } from '../../model/staleness-bound.js';
import type { Store } from '../../ports/store.js';
import { Emitter } from '../../telemetry/emitter.js';
import { Frontier } from '../outbox/frontier.js';
import { explainMissingOutbox } from '../outbox/missing-outbox.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { ANSWER_MS, type OutboxSurvey } from '../outbox/survey.js';
import { type BatchOptions, relayBatch } from './relay-batch.js';
import { relayHeldByMigration, type ReleasedEvents } from './held-by-migration.js';
import { Hints } from './hints.js';
import { logRelay } from './relay-log.js';
import type { RelayEvents } from './relay-events.js';
import { Trust } from './trust.js';

export interface RelayOptions extends OutboxOptions {
  /** The name of the cache whose events to relay; others' are left alone. */
  readonly cache: string;
  /** The database with the outbox: its primary. Give it a pool of its own where the application's may be busy. */
  readonly db: Knex;
  /** Where to bump: `redisStore(redis)`, made for this relay, which closes it. */
  readonly store: Store;
  /** The bounds to vouch for: each `maxStalenessMs` that a cache of this name has, in ms. */
  readonly maxStalenessMs?: number | readonly number[];
  /** How long to wait when there was nothing to do, in ms. Default: 50. */
  readonly pollMs?: number;
  /** Events in one transaction, about. Default: 1,000. */
  readonly batchMax?: number;
  /** A command that the store has not answered by then has failed, in ms. Default: 1,000. */
  readonly bumpDeadlineMs?: number;
  /**
   * After so long a relay that was stopped or cut off with a claim is given up, in ms, and others take its events over.
   * Default: 10,000, and five times `bumpDeadlineMs` at least.
   */
  readonly silenceMaxMs?: number;
  /** How long `stop()` waits for what was claimed, in ms. Default: 5,000. */
  readonly stopDeadlineMs?: number;
  /** Whether to listen for NOTIFY, which `notifyRelays` makes triggers send: a hint that saves waiting. Default: false. */
  readonly listen?: boolean;
  readonly log?: Logger;
}

/** What a relay has done since it began. */
export interface RelayStatus {
  /** Age of the oldest event when last looked at, in ms, by PostgreSQL's clock; 0 when there was none. */
  readonly lagMs: number;
  /** Whether the servers were who counts when last checked. */
  readonly trusted: boolean;
  readonly events: number;
  readonly scopes: number;
  readonly deadLetters: number;
  readonly repairs: number;
  readonly failures: number;
}

/** Without bounds to vouch for, whether the servers are who they were is asked this often, in ms. */
const CHECK_EVERY_MS = 1_000;
/** What a migration holds is bumped this often, in ms. */
const HELD_EVERY_MS = 1_000;
const HELD_TELL_EVERY_MS = 60_000;
/** For rows that did not come by the rules, a restored dump's, in ms. */
const RESCAN_EVERY_MS = 60_000;
const BACK_OFF_MAX_MS = 5_000;
/** Between two batches that were not full, in ms. */
const BREATH_MS = 10;
/** Batches at once while there is a backlog, so that PostgreSQL claims for one while Redis bumps for the other. */
const LANES = 2;
const SILENCE_MAX_MS = 10_000;
/** A bound is checked so many times within itself, at least: it is to survive a late poll or two. */
const CHECKS_PER_BOUND = 4;

/**
 * Starts to turn a cache's events into bumps. One line inside an application:
 *
 *     const relay = startRelay({ cache: 'shop', db, store: redisStore(redis) });
 *     await relay.stop();
 *
 * or alone: `gencache relay`. Any number of them share the work. Polling is the guarantee; a NOTIFY only saves waiting.
 * Idle it costs one query a poll; with bounds to vouch for, two commands more. Throws ConfigurationError.
 */
export function startRelay(options: RelayOptions): Relay {
  return new Relay(options);
}

/**
 *     checking -> trusted -> (batch, batch, ... until the outbox is empty) -> waiting -> checking
 *        |            \-> displaced, failed -> backing off -> checking
 *        \-> not trusted -> waiting -> checking
 */
export class Relay {
  readonly #options: Required<Omit<RelayOptions, 'schema' | 'log' | 'maxStalenessMs'>>;
  readonly #outbox: OutboxOptions;
  readonly #bounds: readonly number[];
  readonly #frontier = new Frontier();
  readonly #trust: Trust;
  readonly #telemetry = new Emitter<RelayEvents>();
  readonly #hints: Hints | undefined;
  readonly #ended: Promise<void>;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  /** Ends the wait, if there is one. */
  #wake: (() => void) | undefined;
  /** There is reason not to wait after this turn. */
  #hinted = false;
  #lagMs = 0;
  #trusted = false;
  #events = 0;
  #scopes = 0;
  #deadLetters = 0;
  #repairs = 0;
  #failures = 0;
  #checkedAtMs = -Infinity;
  #heldAtMs = -Infinity;
  #heldToldAtMs = -Infinity;
  #rescannedAtMs = performance.now();

  constructor(options: RelayOptions) {
    const { schema, log, maxStalenessMs = [], ...rest } = options;
    this.#options = {
      ...{ pollMs: 50, batchMax: 1_000, bumpDeadlineMs: 1_000, stopDeadlineMs: 5_000, listen: false },
      silenceMaxMs: Math.max(SILENCE_MAX_MS, 5 * (rest.bumpDeadlineMs ?? 0)),
      ...rest,
    };
    this.#outbox = schema === undefined ? {} : { schema };
    this.#bounds = [maxStalenessMs].flat().map(checkBound);
    this.#checkOptions();
    const { db, store, cache, bumpDeadlineMs, silenceMaxMs } = this.#options;
    this.#trust = new Trust(db, store, cache, this.#frontier, {
      bounds: this.#bounds,
      deadlineMs: bumpDeadlineMs,
      answerMs: Math.min(ANSWER_MS, 2 * silenceMaxMs),
      outbox: this.#outbox,
    });
    if (log) logRelay(log, this.#telemetry);
    store.listen?.((signal) => {
      if (signal.kind === 'down') this.#failed('store', signal.error);
      if (signal.kind === 'up') this.#hint();
    });
    if (this.#options.listen) {
      // One that comes while something is wrong would undo the backing off.
      this.#hints = new Hints(db, cache, () => this.#trusted && this.#hint());
    }
    this.#ended = this.#run();
  }

  /** Hears an event (`RelayEvents`) from now on. Returns how to stop. */
  on<K extends keyof RelayEvents>(name: K, listener: (event: RelayEvents[K][0]) => void): () => void {
    return this.#telemetry.on(name, listener);
  }

  get status(): RelayStatus {
    return {
      lagMs: this.#lagMs,
      trusted: this.#trusted,
      events: this.#events,
      scopes: this.#scopes,
      deadLetters: this.#deadLetters,
      repairs: this.#repairs,
      failures: this.#failures,
    };
  }

  /**
   * Claims nothing more, finishes what it has claimed, within `stopDeadlineMs`, and closes its store. What it can't finish in
   * time goes back by itself. Idempotent.
   */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    this.#wake?.();
    this.#hints?.close();
    await endsWithin(this.#options.stopDeadlineMs, this.#ended);
    await this.#options.store.close();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#stopping) {
      this.#hinted = false;
      try {
        const found = await this.#turn();
        failures = 0;
        if (found === 'busy') continue;
        // Each round costs what a small write does: under steady writes, hints or not, they are taken together.
        if (found === 'worked') await sleep(Math.min(BREATH_MS, this.#pollMs / 5));
        await this.#wait(this.#trusted ? this.#pollMs : Math.min(this.#pollMs, CHECK_EVERY_MS));
      } catch (error) {
        this.#failed('relay', explainMissingOutbox(error, this.#outbox) as Error);
        if (this.#stopping) break;
        // Whatever failed, how much waits is what somebody on call wants to know.
        await this.#trust.survey().then(this.#polled, () => {});
        await this.#wait(Math.min(BACK_OFF_MAX_MS, this.#pollMs * 2 ** failures++) * (0.5 + Math.random() / 2));
      }
    }
  }

  get #pollMs(): number {
    return Math.min(this.#options.pollMs, ...this.#bounds.map((boundMs) => boundMs / CHECKS_PER_BOUND));
  }

  /** `busy`: there is more to do. `worked`: a batch was not full, so little can be left. */
  async #turn(): Promise<'busy' | 'worked' | 'idle'> {
    const { db, store, cache, batchMax, bumpDeadlineMs, silenceMaxMs } = this.#options;
    const nowMs = performance.now();
    if (nowMs - this.#rescannedAtMs >= RESCAN_EVERY_MS) {
      this.#rescannedAtMs = nowMs;
      this.#frontier.reset();
    }
    const checkEveryMs = this.#bounds.length > 0 ? 0 : CHECK_EVERY_MS;
    const due = !this.#trusted || nowMs - this.#checkedAtMs >= checkEveryMs;
    const survey = due ? await this.#check() : await this.#trust.survey();
    this.#polled(survey);
    if (!this.#trusted) return 'idle';

    const options = { batchMax, deadlineMs: bumpDeadlineMs, silenceMaxMs, outbox: this.#outbox };
    if (survey.heldByMigration.length > 0 && nowMs - this.#heldAtMs >= HELD_EVERY_MS) {
      this.#heldAtMs = nowMs;
      const { events, locks } = await relayHeldByMigration(db, store, cache, options);
      this.#events += events;
      this.#tellHeld(locks, nowMs);
    }
    if (survey.pendingEvents.length + survey.tail.length === 0) return 'idle';
    const claimed = await this.#relay(options);
    if (claimed >= batchMax) {
      const lane = async () => {
        while (!this.#stopping && performance.now() - nowMs < this.#pollMs) {
          if ((await this.#relay(options)) < batchMax) return;
        }
      };
      const lanes = await Promise.allSettled(Array.from({ length: LANES }, lane));
      for (const ended of lanes) if (ended.status === 'rejected') throw ended.reason;
      return 'busy';
    }
    // Nothing, though there is something: others have claimed it.
    return claimed > 0 ? 'worked' : 'idle';
  }

  /** One batch. Returns how many events it had. */
  async #relay(options: BatchOptions): Promise<number> {
    const { db, store, cache } = this.#options;
    const batch = await relayBatch(db, store, cache, this.#frontier, options);
    const { events, deadLetters } = batch;
    this.#events += events;
    this.#scopes += batch.scopes;
    this.#deadLetters += deadLetters.length;
    if (events > 0) this.#telemetry.emit('batch', { cache, ...batch });
    if (deadLetters.length > 0) this.#telemetry.emit('deadLetter', { cache, deadLetters });
    return events;
  }

  readonly #polled = ({ lagMs = 0 }: OutboxSurvey): void => {
    this.#lagMs = lagMs;
    this.#telemetry.emit('poll', { cache: this.#options.cache, lagMs, trusted: this.#trusted });
  };

  async #check(): Promise<OutboxSurvey> {
    this.#trusted = false;
    const { survey, trusted, repaired } = await this.#trust.check();
    this.#trusted = trusted;
    this.#checkedAtMs = performance.now();
    if (repaired !== undefined) {
      this.#repairs++;
      this.#telemetry.emit('repair', { cache: this.#options.cache, cause: repaired });
    }
    return survey;
  }

  /** At once, and each minute: a migrator that died leaves its lock, and nobody else will say so. */
  #tellHeld(locks: ReleasedEvents['locks'], nowMs: number): void {
    if (locks.length === 0 || nowMs - this.#heldToldAtMs < HELD_TELL_EVERY_MS) return;
    this.#heldToldAtMs = nowMs;
    this.#telemetry.emit('heldByMigration', { cache: this.#options.cache, locks });
  }

  #failed(operation: 'relay' | 'store', error: Error): void {
    this.#failures++;
    this.#trusted = false;
    this.#telemetry.emit('failure', { cache: this.#options.cache, operation, error });
  }

  #hint(): void {
    this.#hinted = true;
    this.#wake?.();
  }

  /** Until the time is up, a hint comes or came during the turn, or the relay is stopped. */
  async #wait(ms: number): Promise<void> {
    if (this.#hinted || this.#stopping) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    this.#wake = undefined;
  }

  #checkOptions(): void {
    const { db, store, cache, pollMs, batchMax, bumpDeadlineMs, silenceMaxMs, stopDeadlineMs } = this.#options;
    checkCacheName(cache);
    qualifier(this.#outbox); // throws
    if (typeof db?.raw !== 'function' || typeof store?.bump !== 'function') {
      throw new ConfigurationError(
        'A relay has the name of a cache, a Knex, and a store. Got ' +
          `${describe({ cache, db: typeof db, store: typeof store })}. See startRelay's example.`,
      );
    }
    for (const [name, value, least] of [
      ['pollMs', pollMs, 1],
      ['batchMax', batchMax, 1],
      ['bumpDeadlineMs', bumpDeadlineMs, 1],
      ['silenceMaxMs', silenceMaxMs, 1],
      ['stopDeadlineMs', stopDeadlineMs, 0],
    ] as const) {
      wholeNumber(name, value, least, 3_600_000);
    }
  }
}
