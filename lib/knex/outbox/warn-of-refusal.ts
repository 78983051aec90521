import type { Knex } from 'knex';
import { monotonicMs } from '../../async/scheduling.js';
import type { BumpTarget } from '../../ports/source.js';
import { isSqlstate } from '../postgres/sqlstate.js';
import { explainOutboxError } from './explain-error.js';
import type { OutboxOptions } from './location.js';
import { isOutboxMissing } from './missing-outbox.js';
import { PARTITIONED_WRITER_RIGHTS, WRITER_RIGHTS } from './missing-rights.js';

/** Shortest time between two warnings about one Knex, in ms: without a right, every transaction meets the refusal. */
const WARN_EVERY_MS = 60_000;

const warnedAtMs = new WeakMap<Knex, number>();

/**
 * Warns, with the remedy, if PostgreSQL refused the role a step that the result of a transaction does not depend on, or if the
 * outbox is of a release without its table.
 * `fact` says what was not done. Ignores any other error.
 */
export function warnOfRefusal(
  { db, outbox }: { readonly db: Knex; readonly outbox: OutboxOptions },
  bumps: BumpTarget,
  error: unknown,
  fact: string,
): void {
  const nowMs = monotonicMs();
  const isRefused = isSqlstate(error, 'insufficient privilege') || isOutboxMissing(error);
  if (!isRefused || nowMs - (warnedAtMs.get(db) ?? -Infinity) < WARN_EVERY_MS) return;
  warnedAtMs.set(db, nowMs);
  const rights = !bumps.partitions.isPartitioned ? WRITER_RIGHTS : PARTITIONED_WRITER_RIGHTS;
  const warning = explainOutboxError(db, error, { outbox, rights }).then((explained) =>
    bumps.warn(`${fact} ${(explained as Error).message}`),
  );
  bumps.later(warning);
}
