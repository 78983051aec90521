import type { Knex } from 'knex';
import type { Committed } from '../ports/source.js';
import type { BumpAfterCommit } from './outbox/settle.js';
import type { TransactionId } from './outbox/transaction-id.js';

/**
 * The part of a commit in which plain and strict differ. `transact` calls these in the order given there; each call
 * belongs to one transaction.
 */
export interface CommitStrategy extends BumpAfterCommit {
  /** Runs before BEGIN: a wait has no locks then. Never rejects. */
  beforeBegin(): Promise<void>;
  /** SQL that runs after the last statement of the work, and before the transaction's id is read. */
  readonly preparation: string;
  /** Runs before COMMIT is sent, in a transaction that has written something. A rejection rolls it back. */
  beforeCommit(trx: Knex.Transaction, xid: TransactionId): Promise<void>;
  /** The transaction rolled back, before COMMIT or by COMMIT. Never rejects. */
  aborted(): Promise<void>;
  /** The outcome of COMMIT is unknown: the transaction may still commit. */
  unknown(): void;
  /** The transaction has committed, and settling has ended, in success or not. */
  ended(): void;
  /** The strategy's share of the result; `bump` says whether settling succeeded. */
  outcome(bump: 'done' | 'pending'): Pick<Committed<unknown>, 'strict'>;
}
