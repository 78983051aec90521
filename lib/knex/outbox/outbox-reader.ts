import { monotonicMs } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import { noteBoot } from './authority.js';
import type { EventRanges } from './event-position.js';
import { Frontier } from './frontier.js';
import type { OutboxOptions } from './location.js';
import { type EarlierSnapshots, type OutboxSurvey, surveyOutbox } from './survey.js';

/** Rows that no writer of this server recorded, those of a restored dump, are found after this time at the latest, in ms. */
const RESCAN_EVERY_MS = 60_000;

export interface OutboxReaderOptions {
  readonly db: Knex;
  readonly cache: string;
  readonly outbox: OutboxOptions;
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
  readonly #options: OutboxReaderOptions;
  readonly #frontier = new Frontier();
  /** The incarnation of PostgreSQL that the frontier belongs to. */
  #postgres: string | undefined;
  #rescannedAtMs = monotonicMs();

  constructor(options: OutboxReaderOptions) {
    this.#options = options;
  }

  /** Where events can be, by the last survey. */
  get ranges(): EventRanges {
    return this.#frontier;
  }

  /** One query; two or three in another incarnation of PostgreSQL. Rejects as the source does. */
  async survey(earlier?: EarlierSnapshots): Promise<OutboxSurvey & { readonly postgres: string }> {
    this.#rescanIfDue();
    const { db, outbox } = this.#options;
    let surveyed = await this.#look(earlier);
    if (surveyed.postgres === undefined) {
      await noteBoot(db, outbox);
      surveyed = await this.#look(earlier);
    }
    if (this.#postgres !== undefined && this.#postgres !== surveyed.postgres) {
      // Transaction ids may be given again: the frontier knows those of another history.
      this.#frontier.reset();
      surveyed = await this.#look(earlier);
    }
    const postgres = surveyed.postgres!;
    this.#postgres = postgres;
    this.#frontier.advance(surveyed);
    return { ...surveyed, postgres };
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
