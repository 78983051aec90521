import { monotonicMs } from '../../async/scheduling.js';
import type { Partition } from '../../ports/partitions.js';
import type { Logger } from '../../telemetry/log.js';
import { foreignDeleted } from '../../write/bump-scopes.js';
import { Emitter } from '../../telemetry/emitter.js';
import type { Incarnation } from '../outbox/incarnation.js';
import type { OutboxSurvey } from '../outbox/survey.js';
import type { ReleasedEvents } from './held-by-migration.js';
import type { RelayedBatch } from './relay-batch.js';
import type { RelayEvents } from './relay-events.js';
import { logRelay } from './relay-log.js';
import type { RelayStatus } from './relay-status.js';
import { describeUnknownLineage } from '../outbox/lineage-remedy.js';
import type { PartitionFailure, Repair } from './trust.js';

/** A migration that holds events is reported this often, in ms. */
const HELD_REPORT_EVERY_MS = 60_000;
/** Another relay on another Redis is reported this often, in ms. */
const CONTEST_REPORT_EVERY_MS = 60_000;

/** The same failure of partitions is reported this often, in ms. */
const PARTITIONS_REPORT_EVERY_MS = 10_000;

/** Counts what a relay does, and emits it. */
export class RelayReport {
  readonly #cache: string;
  readonly #emitter = new Emitter<RelayEvents>();
  readonly #isPartitioned: boolean;
  #lagMs = 0;
  #owing: readonly string[] = [];
  #events = 0;
  #scopes = 0;
  #deadLetters = 0;
  #repairs = 0;
  #failures = 0;
  #heldReportedAtMs = -Infinity;
  #contestReportedAtMs = -Infinity;
  /** The incarnation whose unknown lineage was reported. */
  #unknownLineageOf: string | undefined;
  /** By message. */
  readonly #partitionsReportedAtMs = new Map<string, number>();

  constructor(
    cache: string,
    { isPartitioned, log }: { readonly isPartitioned: boolean; readonly log: Logger | undefined },
  ) {
    this.#cache = cache;
    this.#isPartitioned = isPartitioned;
    if (log) logRelay(log, this.#emitter);
  }

  on<K extends keyof RelayEvents>(name: K, listener: (event: RelayEvents[K][0]) => void): () => void {
    return this.#emitter.on(name, listener);
  }

  status(untrusted: readonly Partition[]): RelayStatus {
    return {
      lagMs: this.#lagMs,
      ...this.#trust(untrusted),
      events: this.#events,
      scopes: this.#scopes,
      deadLetters: this.#deadLetters,
      repairs: this.#repairs,
      failures: this.#failures,
    };
  }

  #trust(untrusted: readonly Partition[]): Pick<RelayStatus, 'trusted' | 'partitions'> {
    const trusted = untrusted.length === 0;
    if (!this.#isPartitioned) return { trusted };
    return { trusted, partitions: { untrusted: namesOf(untrusted), owing: this.#owing } };
  }

  /** `survey`: undefined for a poll without one. */
  polled(survey: OutboxSurvey | undefined, untrusted: readonly Partition[]): void {
    if (survey !== undefined) {
      this.#lagMs = survey.lagMs ?? 0;
      this.#owing = [...survey.partitions].flatMap(([name, { owed }]) => (owed === undefined ? [] : name));
    }
    this.#emitter.emit('poll', { cache: this.#cache, lagMs: this.#lagMs, ...this.#trust(untrusted) });
  }

  relayed(batch: RelayedBatch): void {
    const { events, deadLetters } = batch;
    this.#events += events;
    this.#scopes += batch.scopes;
    this.#deadLetters += deadLetters.length;
    if (events > 0) this.#emitter.emit('batch', { cache: this.#cache, ...batch });
    if (deadLetters.length > 0) this.#emitter.emit('deadLetter', { cache: this.#cache, deadLetters });
  }

  /** Bumps that partitions owed are made. */
  paid(scopes: number): void {
    this.#scopes += scopes;
  }

  /** The locks that are still taken are reported at once, and each minute: a migrator that died leaves its lock. */
  released({ events, locks }: ReleasedEvents): void {
    this.#events += events;
    const nowMs = monotonicMs();
    if (locks.length === 0 || nowMs - this.#heldReportedAtMs < HELD_REPORT_EVERY_MS) return;
    this.#heldReportedAtMs = nowMs;
    this.#emitter.emit('heldByMigration', { cache: this.#cache, locks });
  }

  readonly foreign = (paths: readonly string[]): void => this.warned(foreignDeleted(paths));

  readonly warned = (message: string): void => this.#emitter.emit('warning', { cache: this.#cache, message });

  /** Once for each incarnation of PostgreSQL. */
  unknownLineage(
    { postgres, gaps }: Incarnation,
    settings: { readonly bounds: readonly number[]; readonly fenced: boolean },
  ): void {
    if (this.#unknownLineageOf === postgres) return;
    this.#unknownLineageOf = postgres;
    this.#emitter.emit('warning', { cache: this.#cache, message: describeUnknownLineage(gaps, settings) });
  }

  repaired({ cause, partitions }: Repair): void {
    this.#repairs++;
    this.#emitter.emit('repair', {
      cache: this.#cache,
      cause,
      ...(this.#isPartitioned && { partitions: namesOf(partitions) }),
    });
  }

  /** Some partitions failed, and others did not: at once, and every ten seconds. */
  partitionsFailed({ error, partitions }: PartitionFailure): void {
    const nowMs = monotonicMs();
    for (const [told, atMs] of this.#partitionsReportedAtMs)
      if (nowMs - atMs >= PARTITIONS_REPORT_EVERY_MS) this.#partitionsReportedAtMs.delete(told);
    if (this.#partitionsReportedAtMs.has(error.message)) return;
    this.#partitionsReportedAtMs.set(error.message, nowMs);
    this.#failures++;
    this.#emitter.emit('failure', { cache: this.#cache, operation: 'store', error, partitions: namesOf(partitions) });
  }

  /** Relays on two servers take turns of some seconds; one report a minute tells enough. */
  contested(): void {
    const nowMs = monotonicMs();
    if (nowMs - this.#contestReportedAtMs < CONTEST_REPORT_EVERY_MS) return;
    this.#contestReportedAtMs = nowMs;
    this.#emitter.emit('contested', { cache: this.#cache });
  }

  failed(operation: 'relay' | 'store', error: Error): void {
    this.#failures++;
    this.#emitter.emit('failure', { cache: this.#cache, operation, error });
  }
}

function namesOf(partitions: readonly Partition[]): string[] {
  return partitions.map(({ name }) => name);
}
