import type { DeadLetter } from '../outbox/dead-letters.js';
import type { RelayedBatch } from './relay-batch.js';
import type { RelayStatus } from './relay-status.js';
import type { ReleasedEvents } from './held-by-migration.js';
import type { RepairCause } from './trust.js';

/** The events of a relay, for `relay.on`. */
export interface RelayEvents {
  /** At each poll. `lagMs`: the age of the oldest event at the last survey, a second ago at most; 0 without events. */
  poll: [Pick<RelayStatus, 'lagMs' | 'trusted' | 'partitions'> & { readonly cache: string }];
  /** After a batch was bumped and deleted. */
  batch: [RelayedBatch & { readonly cache: string }];
  /** After events could not be understood: the scope bumped for each, and the reason. `gencache_dead_letter` keeps them. */
  deadLetter: [{ readonly cache: string; readonly deadLetters: readonly DeadLetter[] }];
  /** Once a minute while a migration's lock is taken: the events that it holds are bumped each second until it is free. */
  heldByMigration: [{ readonly cache: string; readonly locks: ReleasedEvents['locks'] }];
  /**
   * After everything was bumped: a server went back in time, or may have; or the relay was away and events had waited. On a
   * Redis Cluster, after everything in these partitions was.
   */
  repair: [{ readonly cache: string; readonly cause: RepairCause; readonly partitions?: readonly string[] }];
  /**
   * A fact that the operator should know: a bump deleted foreign values, or reaches no reader; PostgreSQL does not tell its
   * system and timeline.
   */
  warning: [{ readonly cache: string; readonly message: string }];
  /** Once a minute while another relay of the cache makes another Redis authoritative than the one of this relay. */
  contested: [{ readonly cache: string }];
  /** After a turn, or the connection to the store, failed; the relay goes on. `partitions`: those that failed, if others did not. */
  failure: [
    {
      readonly cache: string;
      readonly operation: 'relay' | 'store';
      readonly error: Error;
      readonly partitions?: readonly string[];
    },
  ];
}
