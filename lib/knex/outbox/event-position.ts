/** A transaction with events, and the first of them. */
export interface EventPosition {
  readonly xid: bigint;
  readonly seq: bigint;
}

/** Where a cache's events can be: see `frontier.ts`. */
export interface EventRanges {
  /** Single transactions below the watermark: open when they were last looked at, or with events left. */
  readonly pending: readonly EventPosition[];
  /** From here on, anything. */
  readonly watermark: EventPosition;
}

export const BEGINNING: EventPosition = { xid: 0n, seq: 0n };

/** The ranges of a reader that knows nothing yet. */
export const EVERYWHERE: EventRanges = { pending: [], watermark: BEGINNING };
