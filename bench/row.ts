/** One line of the report; `--json` writes an array of them. */
export interface Row {
  readonly name: string;
  /** What was measured, and beside what. */
  readonly subject: string;
  readonly baseline: string;
  /**
   * Subject by baseline, the median of all block pairs; `unit` says of what where it is not time. Of rates (writes or
   * events a second) more is better.
   */
  readonly ratio: number;
  /** 95 % of the medians that resampled block pairs have. */
  readonly interval: readonly [number, number];
  /** Median duration of one operation; null where no time was measured. */
  readonly subjectMs: number | null;
  readonly baselineMs: number | null;
  /**
   * Commands that clients sent to Redis for one operation of the subject, as MONITOR tells them; of `write.strict`, how
   * many more than for the baseline's.
   */
  readonly commands: number | null;
  readonly unit?: 'bytes' | 'queries' | 'rate' | 'share';
  /** Where the ratio is of bytes. */
  readonly subjectBytes?: number;
  readonly baselineBytes?: number;
  /** What the row promises; none where it only reports. */
  readonly limit?: { readonly ratio?: number; readonly atLeast?: number; readonly commands?: number };
  /** What a reader should know to judge the number. */
  readonly note?: string;
}

/** Whether a row keeps what it promises; undefined where it promises nothing. */
export function kept({ ratio, commands, limit }: Row): boolean | undefined {
  if (limit === undefined) return undefined;
  if (ratio < (limit.atLeast ?? 0)) return false;
  return ratio <= (limit.ratio ?? Infinity) && (commands ?? 0) <= (limit.commands ?? Infinity);
}
