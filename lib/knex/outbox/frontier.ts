import type { OutboxSurvey } from './survey.js';
import { BEGINNING, type EventPosition, type EventRanges } from './event-position.js';

/**
 * The ranges of transaction ids in which a cache's events can be, so that a poll need not read the dead rows of all
 * earlier events.
 *
 * A cursor by id would skip a transaction that commits late (docs/protocol.md, rule 6). The frontier is exact, since
 * events carry the id of the transaction that recorded them. A survey reads one snapshot. An event that the snapshot
 * does not show belongs to a transaction that the snapshot lists as open, or to one from its `xmax` on. An event that
 * it shows is either live, and the frontier begins there at the latest, or deleted for good: a committed transaction
 * adds no event before the first that is left.
 *
 *     pending                                                   watermark
 *      |xid 70, from seq 1    |xid 74, from seq 9  ...          |(xid 81, seq 3) and all that follows
 *
 * **Invariant.** Every present and future event is in one of these ranges. That includes events that a migration holds,
 * since a released event keeps the id of its transaction, however old.
 *
 * Without a frontier, while an old snapshot (a dump, a forgotten session) keeps vacuum away from 400,000 deleted rows,
 * each claim reads all of them: 50 to 60 ms (PostgreSQL 15, 2026-11). Rotated partitions, as in PgQ, were rejected:
 * TRUNCATE waits for that same dump, and rotation needs DDL under load.
 *
 * The ids belong to one incarnation of PostgreSQL: after a crash that lost commits, ids are given again. So the owner
 * (`outbox-reader.ts`) resets the frontier with each incarnation, and once a minute, for rows of a restored dump.
 */
export class Frontier implements EventRanges {
  /** Single transactions below the watermark: open at the last survey, or with events left. `seq`: the first event. */
  pending: readonly EventPosition[] = [];
  /** From here on, events of any transaction. */
  watermark: EventPosition = BEGINNING;

  advance({
    snapshot,
    pendingEvents,
    tail,
    heldByMigration,
  }: Pick<OutboxSurvey, 'snapshot' | 'pendingEvents' | 'tail' | 'heldByMigration'>): void {
    const [oldest] = tail;
    // An id that this history has not given yet came with a restored dump, and tells nothing about ids to come.
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
