import { clearTimeout, monotonicMs, setTimeout, sleep } from '../../async/scheduling.js';
import { endsWithin } from '../../async/ends-within.js';
import { explainOutboxError } from '../outbox/explain-error.js';
import { PARTITIONED_RELAY_RIGHTS, RELAY_RIGHTS } from '../outbox/missing-rights.js';
import { OutboxReader } from '../outbox/outbox-reader.js';
import { ANSWER_MS, type OutboxSurvey } from '../outbox/survey.js';
import { relayHeldByMigration } from './held-by-migration.js';
import { Hints } from './hints.js';
import { relayOwed } from './partition-bumps.js';
import { relayBatch } from './relay-batch.js';
import type { RelayContext } from './relay-context.js';
import type { RelayEvents } from './relay-events.js';
import { type RelayOptions, type RelaySettings, relaySettings } from './relay-options.js';
import { RelayReport } from './relay-report.js';
import type { RelayStatus } from './relay-status.js';
import { StrangePaths } from './strange-paths.js';
import { Trust } from './trust.js';
import type { Partition, Partitions } from '../../ports/partitions.js';

/**
 * Without bounds to guarantee, the authority of the servers is checked, and the outbox surveyed, this often, in ms. A survey takes
 * PostgreSQL 0.9 ms of its own time, most of it for planning; a claim that finds nothing takes 0.3 ms (PostgreSQL 15, 2026-11).
 */
const CHECK_EVERY_MS = 1_000;
/** Of several partitions, some of which are not trusted: the servers are checked again after this time, in ms. */
const RECHECK_EVERY_MS = 200;
/** Events that a migration holds are bumped this often, in ms. */
const HELD_EVERY_MS = 1_000;
const BACK_OFF_MAX_MS = 5_000;
/** Pause between two batches that were not full, in ms. */
const BREATH_MS = 10;
/** Batches at once while there is a backlog, so that PostgreSQL claims for one while Redis bumps for the other. */
const LANES = 2;
/** A turn with a backlog ends after this time at the latest, in ms: the next survey moves the frontier past the deleted rows. */
const BACKLOG_TURN_MS = 100;
/** Checks within one bound, at least: the bound is to survive a late poll or two. */
const CHECKS_PER_BOUND = 4;
/** Further checks within one bound, one for each lookup, at most: each makes the base of an age one check older (`event-ages.ts`). */
const CHECKS_FOR_LOOKUPS_MAX = 12;

/**
 * Starts to turn a cache's events into bumps. One line inside an application:
 *
 *     const relay = startRelay({ cache: 'shop', db, store: redisStore(redis) });
 *     await relay.stop();
 *
 * or alone: `gencache relay`. Any number of relays share the work. Polling is the guarantee; a NOTIFY only ends a
 * pause. An idle relay costs two short queries a poll, and one query and two commands a second; with bounds to guarantee, one
 * query and two commands a poll.
 *
 * On a Redis Cluster a check takes a command for each primary and one for each partition, so the relay makes four in the
 * smallest bound, and one a second at least. A primary that is away stops the bumps of its own partitions alone; they are
 * kept in the outbox, and made once it is back. Throws ConfigurationError.
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
  readonly #settings: RelaySettings;
  readonly #isPartitioned: boolean;
  #context: RelayContext;
  readonly #report: RelayReport;
  readonly #reader: OutboxReader;
  readonly #trust: Trust;
  readonly #strange: StrangePaths;
  readonly #hints: Hints | undefined;
  readonly #ended: Promise<void>;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  /** The partitions that were not trusted when the relay closed its store. */
  #untrustedAtEnd: readonly Partition[] | undefined;
  /** Ends the pause, if there is one. */
  #wake: (() => void) | undefined;
  /** A hint came during this turn: no pause follows it. */
  #hinted = false;
  #checkedAtMs = -Infinity;
  /** A connection to one of several primaries has opened. */
  #isCheckDue = false;
  /** Number of events since the last survey: their dead rows lie within the frontier. */
  #claimed = 0;
  /** As of the last survey. */
  #lookups = 0;
  /** The last batches were full. */
  #isBehind = false;
  #heldAtMs = -Infinity;

  constructor(options: RelayOptions) {
    const settings = relaySettings(options);
    const { db, store, cache, outbox, bounds, silenceMaxMs, listen, partitions } = settings;
    this.#settings = settings;
    this.#report = new RelayReport(cache, { isPartitioned: partitions.isPartitioned, log: options.log });
    this.#strange = new StrangePaths({ db, cache, outbox, warn: this.#report.warned });
    this.#isPartitioned = partitions.isPartitioned;
    this.#reader = new OutboxReader({ db, cache, outbox, answerMs: Math.min(ANSWER_MS, 2 * silenceMaxMs) });
    const checkEveryMs = Math.max(this.#pollMs, this.#checkEveryMs(true));
    this.#trust = new Trust({ ...settings, bounds, reader: this.#reader, checkEveryMs });
    this.#context = {
      ...{ ...settings, onForeign: this.#report.foreign },
      ...(this.#isPartitioned && { trust: this.#trust }),
    };
    if (this.#isPartitioned) this.#serve(partitions.including(this.#alsoPartitions));
    store.listen?.((signal) => {
      // Of several primaries the others are as they were.
      if (signal.kind === 'down' && this.#isPartitioned) this.#report.failed('store', signal.error);
      else if (signal.kind === 'down') this.#failed('store', signal.error);
      if (signal.kind === 'up' || signal.kind === 'server_up') {
        this.#isCheckDue = this.#isPartitioned;
        this.#hint();
      }
    });
    // A hint that comes while something is wrong would undo the backing off.
    if (listen) this.#hints = new Hints(db, cache, () => this.#isTrusted && this.#hint());
    this.#ended = this.#run();
  }

  /** Calls `listener` for each event of this name (`RelayEvents`). Returns a function that stops it. */
  on<K extends keyof RelayEvents>(name: K, listener: (event: RelayEvents[K][0]) => void): () => void {
    return this.#report.on(name, listener);
  }

  get status(): RelayStatus {
    return this.#report.status(this.#untrustedAtEnd ?? this.#trust.untrusted);
  }

  /**
   * Claims nothing more, finishes the claimed events within `stopDeadlineMs`, and closes the store. Events that are not
   * finished in time go back by themselves. Idempotent.
   */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  /** Stops the relay: `await using relay = startRelay(...)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    this.#wake?.();
    this.#hints?.close();
    await endsWithin(this.#settings.stopDeadlineMs, Promise.all([this.#ended, this.#strange.settled]));
    this.#untrustedAtEnd = this.#trust.untrusted;
    await this.#settings.store.close();
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#stopping) {
      this.#hinted = false;
      try {
        const found = await this.#turn();
        failures = 0;
        if (found === 'busy') continue;
        // Each turn costs as much as a small write: under steady writes, hinted or not, a pause lets several share one.
        if (found === 'worked' || this.#hinted) await sleep(Math.min(BREATH_MS, this.#pollMs / 5));
        await this.#wait(this.#isTrusted ? this.#pollMs : Math.min(this.#pollMs, CHECK_EVERY_MS));
      } catch (error) {
        this.#trust.distrustAll();
        this.#isBehind = false;
        const { db, outbox } = this.#settings;
        const rights = this.#isPartitioned ? PARTITIONED_RELAY_RIGHTS : RELAY_RIGHTS;
        const explained = await explainOutboxError(db, error, { outbox, rights });
        this.#failed('relay', explained as Error);
        if (this.#stopping) break;
        // The lag is reported after a failure, too.
        await this.#reader.survey().then(
          (survey) => this.#polled(survey),
          () => {},
        );
        await this.#wait(Math.min(BACK_OFF_MAX_MS, this.#pollMs * 2 ** failures++) * (0.5 + Math.random() / 2));
      }
    }
  }

  get #pollMs(): number {
    return Math.min(this.#settings.pollMs, this.#checksMs);
  }

  /** The longest time between two checks that the bounds allow, in ms. */
  get #checksMs(): number {
    const checks = CHECKS_PER_BOUND + Math.min(this.#lookups, CHECKS_FOR_LOOKUPS_MAX);
    return Math.min(...this.#settings.bounds.map((boundMs) => boundMs / checks));
  }

  get #backlogTurnMs(): number {
    return this.#settings.bounds.length > 0 ? Math.min(this.#pollMs, BACKLOG_TURN_MS) : BACKLOG_TURN_MS;
  }

  /**
   * A turn checks the servers if the last check is older; with bounds, each turn does, but of several partitions as often as
   * the smallest bound needs it.
   */
  #checkEveryMs(areAllTrusted: boolean): number {
    if (!this.#isPartitioned) return this.#settings.bounds.length > 0 ? 0 : CHECK_EVERY_MS;
    return Math.min(areAllTrusted ? CHECK_EVERY_MS : RECHECK_EVERY_MS, this.#checksMs);
  }

  get #isTrusted(): boolean {
    return this.#trust.isAnyTrusted;
  }

  /** `busy`: there is more to do. `worked`: a batch was not full, so little can be left. */
  async #turn(): Promise<'busy' | 'worked' | 'idle'> {
    const { batchMax } = this.#settings;
    const nowMs = monotonicMs();
    const checkEveryMs = this.#checkEveryMs(this.#trust.untrusted.length === 0);
    const isCheckDue = !this.#isTrusted || this.#isCheckDue || nowMs - this.#checkedAtMs >= checkEveryMs;
    if (isCheckDue || this.#claimed >= batchMax) {
      this.#claimed = 0;
      const survey = isCheckDue ? await this.#check() : await this.#reader.survey();
      if (this.#isPartitioned && this.#findLayouts(survey)) return 'busy';
      this.#lookups = survey.lookups;
      this.#polled(survey);
      if (!this.#isTrusted) return 'idle';

      if (survey.heldByMigration.length > 0 && nowMs - this.#heldAtMs >= HELD_EVERY_MS) {
        this.#heldAtMs = nowMs;
        this.#report.released(await relayHeldByMigration(this.#context));
      }
      if (this.#isPartitioned) await this.#relayOwed(survey, nowMs + this.#backlogTurnMs);
      if (survey.pendingEvents.length + survey.tail.length === 0) {
        this.#isBehind = false;
        return 'idle';
      }
    } else this.#polled(undefined);
    if (!this.#isBehind) {
      const claimed = await this.#relay();
      // A claim of 0 may mean that other relays have claimed what there is.
      if (claimed < batchMax) return claimed > 0 ? 'worked' : 'idle';
    }
    this.#isBehind = await this.#relayBacklog(nowMs + this.#backlogTurnMs);
    return 'busy';
  }

  /** Serves the layouts that are registered. Returns whether they are others than before: they are checked next. */
  #findLayouts({ layouts }: OutboxSurvey): boolean {
    const partitions = this.#settings.partitions.including([...this.#alsoPartitions, ...layouts]);
    if (partitions === this.#context.partitions) return false;
    this.#serve(partitions);
    this.#isCheckDue = true;
    return true;
  }

  #serve(partitions: Partitions): void {
    this.#context = { ...this.#context, partitions };
    this.#trust.serve(partitions);
    this.#reader.serve(partitions.list.map(({ name }) => name));
  }

  get #alsoPartitions(): readonly number[] {
    const { store } = this.#settings;
    return ('partitions' in store && store.alsoPartitions) || [];
  }

  /** Makes the bumps that partitions owe which are trusted again, until `untilMs`. */
  async #relayOwed({ partitions }: OutboxSurvey, untilMs: number): Promise<void> {
    let isFull = true;
    while (isFull && !this.#stopping && monotonicMs() < untilMs) {
      const owing = this.#context.partitions.list.filter(
        (each) => partitions.get(each.name)?.owed !== undefined && this.#trust.isTrusted(each),
      );
      if (owing.length === 0) return;
      const paid = await relayOwed(this.#context, owing);
      this.#report.paid(paid.scopes);
      isFull = paid.isFull;
    }
  }

  /** Relays batch after batch, in lanes, until `untilMs`. Returns whether all batches were full. Rejects as the first lane that failed. */
  async #relayBacklog(untilMs: number): Promise<boolean> {
    const { batchMax } = this.#settings;
    let isBehind = true;
    const lane = async () => {
      while (isBehind && !this.#stopping && monotonicMs() < untilMs) {
        if ((await this.#relay()) < batchMax) isBehind = false;
      }
    };
    const lanes = await Promise.allSettled(Array.from({ length: LANES }, lane));
    for (const ended of lanes) if (ended.status === 'rejected') throw ended.reason;
    return isBehind;
  }

  /** One batch. Returns the number of its events. */
  async #relay(): Promise<number> {
    const batch = await relayBatch(this.#context, this.#reader.ranges, this.#settings.batchMax);
    this.#claimed += batch.events;
    this.#report.relayed(batch);
    this.#strange.compare(batch.paths);
    return batch.events;
  }

  /** Until the check has ended, the outcome of the last one stands: a failed check ends in `#failed`. A signal asks for the next. */
  async #check(): Promise<OutboxSurvey> {
    this.#isCheckDue = false;
    const { survey, repairs, failures, isContested, unknownLineage } = await this.#trust.check();
    this.#checkedAtMs = monotonicMs();
    for (const repair of repairs) this.#report.repaired(repair);
    for (const failure of failures) this.#report.partitionsFailed(failure);
    if (isContested) this.#report.contested();
    if (unknownLineage !== undefined) this.#report.unknownLineage(unknownLineage, this.#settings);
    return survey;
  }

  #failed(operation: 'relay' | 'store', error: Error): void {
    this.#trust.distrustAll();
    this.#report.failed(operation, error);
  }

  #polled(survey: OutboxSurvey | undefined): void {
    this.#report.polled(survey, this.#trust.untrusted);
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
}
