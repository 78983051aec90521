import type { Snapshot } from './snapshot.js';

/**
 * Where a cache's events can be, so that a poll need not pass over the dead rows of all that came before.
 *
 * A cursor by id would skip the transaction that commits late (protocol rule 6). This one is exact, since events carry
 * the id of the transaction that recorded them. A survey reads one snapshot. What it doesn't show as committed is either
 * among the transactions it lists as open, or begins at its `xmax`; what it does show is either live, and pulls the
 * frontier down to itself, or gone for good.
 *
 * **Invariant.** Every event that is there, or will ever be, was recorded by a transaction of `open`, or from `high` on.
 *
 * Without it, while an old snapshot (a dump, a forgotten session) keeps vacuum away from 400,000 rows bumped and
 * deleted long ago, each claim reads them all: 50 to 60 ms (PostgreSQL 15, 2026-11). Rotated partitions, as PgQ has them, were
 * the alternative: TRUNCATE has to wait for that same dump, which locks every table, and needs DDL while writers write.
 *
 * It counts in transaction ids of one incarnation of PostgreSQL: after a crash that lost commits, ids come again, so
 * it begins anew with each incarnation, and once a minute, for rows that a restored dump brought in.
 */
export class Frontier {
  /** In progress when they were last looked at, or with events left. */
  open: readonly bigint[] = [];
  high = 0n;

  /** `left`: of `open`, those with events still there; `oldest`: the first event's transaction from `high` on. */
  advance(snapshot: Snapshot, left: readonly bigint[], oldest: bigint | undefined): void {
    const high = oldest ?? snapshot.xmax;
    this.open = [...new Set([...left, ...snapshot.open])].filter((xid) => xid < high);
    this.high = high;
  }

  reset(): void {
    this.open = [];
    this.high = 0n;
  }

  /** For queries: `open` as xid8[], `high` as xid8. */
  get bindings(): { readonly open: string[]; readonly high: string } {
    return { open: this.open.map(String), high: String(this.high) };
  }
}
