import type { Knex } from 'knex';
import type { OutboxOptions } from './outbox/location.js';

/** Who writes: its database, the outbox there, and how long what takes. */
export interface Writer {
  readonly db: Knex;
  readonly outbox: OutboxOptions;
  readonly limits: WriterLimits;
}

export interface WriterLimits {
  /** How long a strict commit's quarantine lasts that nobody renews, in ms. */
  readonly quarantineMs: number;
  /** How long to ask what became of a COMMIT that has no answer, in ms; it may still be under way. */
  readonly settleMs: number;
}

export const WRITER_LIMITS: WriterLimits = { quarantineMs: 10_000, settleMs: 5_000 };
