/** A snapshot as PostgreSQL writes it, `xmin:xmax:xip,xip`: which transactions it takes for committed. */
export interface Snapshot {
  readonly text: string;
  /** No transaction from here on had ended. */
  readonly xmax: bigint;
  /** Those below `xmax` that were still open, prepared ones among them. */
  readonly open: readonly bigint[];
}

export function parseSnapshot(text: string): Snapshot {
  const [, xmax, open] = text.split(':');
  return { text, xmax: BigInt(xmax!), open: open ? open.split(',').map(BigInt) : [] };
}

/** Whether what this transaction wrote was visible: of one that committed sooner or later. */
export function wasVisible(xid: bigint, { xmax, open }: Snapshot): boolean {
  return xid < xmax && !open.includes(xid);
}
