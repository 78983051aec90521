import type { Knex } from 'knex';
import type { Partition, Partitions } from '../../ports/partitions.js';
import type { OutboxOptions } from '../outbox/location.js';

/** The servers, names and limits that a relay works with. */
export interface RelayContext {
  readonly db: Knex;
  readonly partitions: Partitions;
  /** Which partitions are tried; undefined for the only one. */
  readonly trust?: PartitionsTrust | undefined;
  readonly cache: string;
  readonly outbox: OutboxOptions;
  readonly bumpDeadlineMs: number;
  /** Called with the paths at whose keys a bump found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
  /** PostgreSQL ends the session of a relay that is silent between claim and commit for this time, in ms. */
  readonly silenceMaxMs: number;
}

/** The partitions that a relay takes for able to bump, by its last check and by what went wrong since. */
export interface PartitionsTrust {
  readonly isAnyTrusted: boolean;
  /** The time, in ms, by which a primary may be slower than another one. */
  readonly stragglerMs: number;
  isTrusted(partition: Partition): boolean;
  /** Takes the trust of one partition until a check of its own succeeds. */
  distrust(partition: Partition, error: Error): void;
  /** The same of all partitions of its server. `unsettled`: a command that may be under way, behind which none is sent. */
  distrustServerOf(partition: Partition, error: Error, unsettled: Promise<unknown>): void;
}
