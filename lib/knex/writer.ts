import type { Knex } from 'knex';
import { explainOutboxError } from './outbox/explain-error.js';
import type { OutboxOptions } from './outbox/location.js';
import { WRITER_RIGHTS } from './outbox/missing-rights.js';

/** Database handle, outbox location and time limits of the writer of transactions. */
export interface Writer {
  readonly db: Knex;
  readonly outbox: OutboxOptions;
  readonly limits: WriterLimits;
}

export interface WriterLimits {
  /** How long the quarantine of a strict commit lasts without a renewal, in ms. */
  readonly quarantineMs: number;
  /** How long PostgreSQL is queried for the outcome of a COMMIT without a reply, in ms; it may still be in progress. */
  readonly settleMs: number;
}

export const WRITER_LIMITS: WriterLimits = { quarantineMs: 10_000, settleMs: 5_000 };

/** The error of a query of a writer, with a remedy if the outbox is missing or refuses the role. */
export function explainWriterError({ db, outbox }: Pick<Writer, 'db' | 'outbox'>, error: unknown): Promise<unknown> {
  return explainOutboxError(db, error, { outbox, rights: WRITER_RIGHTS });
}
