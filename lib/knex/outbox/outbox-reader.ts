import { monotonicMs } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import { noteBoot } from './authority.js';
import type { EventRanges } from './event-position.js';
import { Frontier } from './frontier.js';
import { type Incarnation, readIncarnation } from './incarnation.js';
import type { OutboxOptions } from './location.js';
import { type EarlierSnapshots, type OutboxSurvey, surveyOutbox } from './survey.js';

/** Rows that no writer of this server recorded, those of a restored dump, are found after this time at the latest, in ms. */
const RESCAN_EVERY_MS = 60_000;

export interface OutboxReaderOptions {
  readonly db: Knex;
  readonly cache: string;
  readonly outbox: OutboxOptions;
  /** As in SurveyOptions. */
  readonly partitions?: readonly string[];
  /** A survey that takes longer has failed, in ms: its connection may be half-open. */
  readonly answerMs: number;
}

/**
 * Reads one cache's outbox for a relay, and owns its frontier: a survey moves it on, and claims ask for its ranges.
 *
 * The frontier counts in transaction ids of one incarnation of PostgreSQL, so it begins anew with another one, and once a
 * minute.
 */
export class OutboxReader {
  #options: OutboxReaderOptions;
  readonly #frontier = new Frontier();
  /** The life of PostgreSQL that the frontier belongs to, and its incarnation. */
  #life: string | undefined;
  #incarnation: Incarnation | undefined;
  #rescannedAtMs = monotonicMs();

  constructor(options: OutboxReaderOptions) {
    this.#options = options;
  }

  /** Surveys these partitions from now on. */
  serve(partitions: readonly string[]): void {
    this.#options = { ...this.#options, partitions };
  }

  /** Where events can be, by the last survey. */
  get ranges(): EventRanges {
    return this.#frontier;
  }

  /** One query; up to six in another life of PostgreSQL. Rejects as the source does. */
  async survey(earlier?: EarlierSnapshots): Promise<OutboxSurvey & Incarnation> {
    this.#rescanIfDue();
    const { db, outbox } = this.#options;
    let surveyed = await this.#look(earlier);
    if (surveyed.life === undefined) {
      await noteBoot(db, outbox);
      surveyed = await this.#look(earlier);
    }
    if (this.#life !== undefined && this.#life !== surveyed.life) {
      // Transaction ids may be given again: the frontier knows those of another history.
      this.#frontier.reset();
      surveyed = await this.#look(earlier);
    }
    const incarnation = await this.#incarnationOf(surveyed.life);
    this.#frontier.advance(surveyed);
    return { ...surveyed, ...incarnation };
  }

  /** Read once in each life: later surveys find the same. */
  async #incarnationOf(life: string | undefined): Promise<Incarnation> {
    if (this.#incarnation === undefined || this.#life !== life) {
      const { outbox, answerMs, db } = this.#options;
      const read = life === undefined ? undefined : await readIncarnation(db, life, { outbox, answerMs });
      if (read === undefined) throw new Error('PostgreSQL was replaced, or crashed, while the outbox was read.');
      this.#life = life;
      this.#incarnation = read;
    }
    return this.#incarnation;
  }

  #look(earlier: EarlierSnapshots | undefined): Promise<OutboxSurvey> {
    const { db, ...options } = this.#options;
    return surveyOutbox(db, { ...options, ranges: this.#frontier, earlier });
  }

  #rescanIfDue(): void {
    const nowMs = monotonicMs();
    if (nowMs - this.#rescannedAtMs < RESCAN_EVERY_MS) return;
    this.#rescannedAtMs = nowMs;
    this.#frontier.reset();
  }
}
