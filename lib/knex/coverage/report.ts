import type { RowOperation } from '../triggers/trigger-definition.js';

/** What coverage can find. */
export type CoverageKind =
  | GapKind
  | UnknownKind
  | 'no rows'
  | 'ids not derived'
  | 'column watched and not read'
  | 'table watched and not read'
  | 'accepted'
  | 'accepted and not found';

/** A change that leaves a cached value as it was. */
export type GapKind =
  | 'table not watched'
  | 'column left out'
  | 'operation left out'
  | 'scope not bumped'
  | 'join not looked up'
  | 'id of another column'
  | 'triggers not as installed';

/** A part of an answer whose source can't be seen. */
export type UnknownKind =
  | 'no sample'
  | 'loader failed'
  | 'no statement'
  | 'statement not readable'
  | 'function'
  | 'clock'
  | 'foreign table'
  | 'materialized view'
  | 'temporary table'
  | 'system table'
  | 'sequence'
  | 'rows hidden by policies';

export interface CoverageFinding {
  /** `gap`: a change goes unseen. `unknown`: it can't be told. `note`: a fact that leaves the result as it is. */
  readonly severity: 'gap' | 'unknown' | 'note';
  readonly kind: CoverageKind;
  /** The entries concerned: `customer.orders`. */
  readonly entries: readonly string[];
  /** The table, function or entry that it is about, as `accept` names it: `function app.price(integer)`. */
  readonly subject: string;
  readonly columns?: readonly string[];
  readonly operations?: readonly RowOperation[];
  readonly message: string;
  readonly remedy: string;
}

/** What one entry reads. */
export interface EntryCoverage {
  readonly entry: string;
  /** The statements that its loader sent, each once. */
  readonly statements: readonly string[];
  /** The rows that its loader returned for the samples. */
  readonly rows: number;
  readonly tables: readonly TableCoverage[];
}

export interface TableCoverage {
  readonly table: string;
  /** The columns that the statements depend on. */
  readonly columns: readonly string[];
  readonly covered: boolean;
}

/** A sentence that watches a table, or watches it better. */
export interface Proposal {
  readonly table: string;
  /** `await onChangeOf(db, 'product', { ... })...install();` */
  readonly sentence: string;
  /** The parts that the owner must fill in, or check; empty if all was derived. */
  readonly open: readonly string[];
  /** Whether the sentence replaces an installed one. */
  readonly replaces: boolean;
}

export interface CoverageReport {
  readonly cache: string;
  /** Whether every change of what the entries read is seen: no gap, and no unknown that is not accepted. */
  readonly ok: boolean;
  readonly entries: readonly EntryCoverage[];
  readonly findings: readonly CoverageFinding[];
  readonly proposals: readonly Proposal[];
  /** A migration with all proposals; empty without one. */
  readonly migration: string;
  /** All of this, for a person. */
  readonly text: string;
}
