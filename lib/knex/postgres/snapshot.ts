/** A snapshot of PostgreSQL, `xmin:xmax:xip,xip`: the transactions that it takes for committed. */
export interface Snapshot {
  readonly text: string;
  /** No transaction from this id on had ended. */
  readonly xmax: bigint;
  /** The transactions below `xmax` that were open, prepared ones included. */
  readonly open: readonly bigint[];
}

export function parseSnapshot(text: string): Snapshot {
  const [, xmax, open] = text.split(':');
  return { text, xmax: BigInt(xmax!), open: open ? open.split(',').map(BigInt) : [] };
}

/** Whether the snapshot shows the writes of this transaction, which has committed sooner or later. */
export function wasVisible(xid: bigint, { xmax, open }: Snapshot): boolean {
  return xid < xmax && !open.includes(xid);
}
