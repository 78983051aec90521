import type { DeadLetter } from '../outbox/dead-letters.js';
import type { RelayedBatch } from './relay-batch.js';
import type { ReleasedEvents } from './held-by-migration.js';
import type { RepairCause } from './trust.js';

/** What a relay tells about itself. */
export interface RelayEvents {
  /** Whenever it has looked at the outbox. `lagMs`: the age of the oldest event, 0 if there is none. */
  poll: [{ readonly cache: string; readonly lagMs: number; readonly trusted: boolean }];
  /** When a batch was bumped and deleted. */
  batch: [RelayedBatch & { readonly cache: string }];
  /** When events could not be understood: what was bumped for each, and why. They are kept in `gencache_dead_letter`. */
  deadLetter: [{ readonly cache: string; readonly deadLetters: readonly DeadLetter[] }];
  /** While a migration's lock is taken, once a minute: everything it holds is bumped each second until it is free. */
  heldByMigration: [{ readonly cache: string; readonly locks: ReleasedEvents['locks'] }];
  /** When everything was bumped, since a server went back in time, or may have. */
  repair: [{ readonly cache: string; readonly cause: RepairCause }];
  /** When a turn failed, or the connection to the store did; the relay goes on. */
  failure: [{ readonly cache: string; readonly operation: 'relay' | 'store'; readonly error: Error }];
}
