/** A transaction with events, and the first of these. */
export interface EventPosition {
  readonly xid: bigint;
  readonly seq: bigint;
}

/** The ranges of transaction ids in which a cache's events can be: see `frontier.ts`. */
export interface EventRanges {
  /** Single transactions below the watermark: open at the last survey, or with events left. */
  readonly pending: readonly EventPosition[];
  /** From here on, events of any transaction. */
  readonly watermark: EventPosition;
}

export const BEGINNING: EventPosition = { xid: 0n, seq: 0n };

/** The ranges of a reader that knows nothing yet. */
export const EVERYWHERE: EventRanges = { pending: [], watermark: BEGINNING };
