/** A snapshot as PostgreSQL writes it, `xmin:xmax:xip,xip`: which transactions it takes for committed. */
export interface Snapshot {
  readonly text: string;
  /** No transaction from here on had begun to write. */
  readonly xmax: bigint;
  /** Those below `xmax` that were still open. */
  readonly open: readonly bigint[];
}

export function parseSnapshot(text: string): Snapshot {
  const [, xmax, open] = text.split(':');
  return { text, xmax: BigInt(xmax!), open: open ? open.split(',').map(BigInt) : [] };
}
