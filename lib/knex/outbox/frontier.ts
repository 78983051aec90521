import type { OutboxSurvey } from './survey.js';
import { BEGINNING, type EventPosition, type EventRanges } from './event-position.js';

/**
 * Where a cache's events can be, so that a poll need not pass over the dead rows of all that came before.
 *
 * A cursor by id would skip the transaction that commits late (docs/protocol.md, rule 6). This one is exact, since events carry
 * the id of the transaction that recorded them. A survey reads one snapshot. What it doesn't show as committed is either
 * of a transaction that it lists as open, or of one from its `xmax` on. What it does show is either live, and pulls the
 * frontier down to itself, or gone for good: so within a transaction that has committed, nothing comes before its first
 * event that is left.
 *
 *     open                        high
 *      |xid 70, from seq 1    |xid 74, from seq 9  ...          |(xid 81, seq 3) and all that follows
 *
 * **Invariant.** Every event that is there, or will ever be, is in one of these ranges. Those that a migration holds
 * too, since one that is let go keeps its transaction's id, however old.
 *
 * Without it, while an old snapshot (a dump, a forgotten session) keeps vacuum away from 400,000 rows bumped and
 * deleted long ago, each claim reads them all: 50 to 60 ms (PostgreSQL 15, 2026-11). Rotated partitions, as PgQ has them, were
 * the alternative: TRUNCATE has to wait for that same dump, which locks every table, and needs DDL while writers write.
 *
 * It counts in transaction ids of one incarnation of PostgreSQL: after a crash that lost commits, ids come again, so
 * it begins anew with each incarnation, and once a minute, for rows that a restored dump brought in.
 */
export class Frontier implements EventRanges {
  /** Single transactions below `high`: open when they were last looked at, or with events left. `seq`: from where on. */
  pending: readonly EventPosition[] = [];
  /** From here on, anything. */
  watermark: EventPosition = BEGINNING;

  advance({
    snapshot,
    pendingEvents,
    tail,
    heldByMigration,
  }: Pick<OutboxSurvey, 'snapshot' | 'pendingEvents' | 'tail' | 'heldByMigration'>): void {
    const [oldest] = tail;
    // An id that this history has not given yet is a restored dump's, and says nothing about those that it will give.
    const high = oldest !== undefined && oldest.xid < snapshot.xmax ? oldest : { xid: snapshot.xmax, seq: 0n };
    const open = new Map<bigint, bigint>(snapshot.open.map((xid) => [xid, 0n]));
    for (const { xid, seq } of [...pendingEvents, ...heldByMigration]) {
      const other = open.get(xid);
      if (other === undefined || seq < other) open.set(xid, seq);
    }
    this.pending = [...open]
      .map(([xid, seq]) => ({ xid, seq }))
      .filter(({ xid, seq }) => xid < high.xid || (xid === high.xid && seq < high.seq));
    this.watermark = high;
  }

  reset(): void {
    this.pending = [];
    this.watermark = BEGINNING;
  }
}
