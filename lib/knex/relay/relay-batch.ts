import { monotonicMs } from '../../async/scheduling.js';
import { bumpPaths } from '../../write/bump-paths.js';
import { claimSql, hasInvalidPath } from '../outbox/claim.js';
import { type DeadLetter, keepDeadLetters } from '../outbox/dead-letters.js';
import type { OutboxEvent, PositionedEvent } from '../outbox/event.js';
import type { EventRanges } from '../outbox/event-position.js';
import { resolveEvents } from '../outbox/resolve-events.js';
import { assertAuthoritative } from './authoritative-bump.js';
import { inBumpTransaction } from './bump-transaction.js';
import { bumpPartitions, dueOf, oweFailed, spanOf } from './partition-bumps.js';
import type { RelayContext } from './relay-context.js';

/** Events that were bumped and deleted. */
export interface RelayedBatch {
  readonly events: number;
  readonly scopes: number;
  /** The paths of these scopes. */
  readonly paths: readonly string[];
  /** Number of events by cause: `detector UPDATE`. */
  readonly causes: ReadonlyMap<string, number>;
  readonly deadLetters: readonly DeadLetter[];
  readonly durationMs: number;
  /** The partitions that owe bumps of these events, of a cache that has several. */
  readonly owing?: readonly string[];
}

/**
 * Claims events, resolves, bumps and deletes them, in one transaction (docs/protocol.md, rules 6, 7 and 10).
 *
 *     BEGIN, claim and delete  [lookups]  bump  assert that the server is authoritative  COMMIT
 *
 * Before COMMIT a crash, a failure or a lost connection puts the events back, bumped or not; a second bump is harmless. A
 * relay that is suspended in between keeps its claim until PostgreSQL ends its session. Other relays skip claimed events.
 * Of several partitions, those that did not take their bumps owe them from then on (docs/protocol.md, rule 9a).
 * Three queries or more, and one command for each 1,000 scopes; two queries without events.
 */
export async function relayBatch(context: RelayContext, ranges: EventRanges, batchMax: number): Promise<RelayedBatch> {
  return (await relayClaim(context, ranges, batchMax)) ?? (await relayClaim(context, ranges, batchMax, true))!;
}

/** Returns undefined, and leaves the events, if one has an invalid path and `whole` is false. */
async function relayClaim(
  context: RelayContext,
  ranges: EventRanges,
  max: number,
  whole = false,
): Promise<RelayedBatch | undefined> {
  const { db, partitions, cache, outbox, bumpDeadlineMs, silenceMaxMs, onForeign } = context;
  const isOne = !partitions.isPartitioned;
  const startedAtMs = monotonicMs();
  const first = claimSql({ cache, ranges, max, outbox, whole, positions: !isOne });
  try {
    return await inBumpTransaction(db, { silenceMaxMs, first }, async (trx, rows) => {
      const events = rows as readonly OutboxEvent[];
      if (!whole && hasInvalidPath(events)) throw new InvalidPath();
      const { paths, deadLetters } = await resolveEvents(trx, events, outbox);
      let owing: readonly string[] | undefined;
      if (isOne) {
        const servers = await bumpPaths({ partitions, cache, paths, deadlineMs: bumpDeadlineMs, onForeign });
        await keepDeadLetters(trx, deadLetters, outbox);
        if (events.length > 0) await assertAuthoritative(trx, context, servers.get(partitions.first));
      } else {
        const claimed = { paths, span: spanOf(events as readonly PositionedEvent[]) };
        const bumps = await bumpPartitions(context, dueOf(partitions, claimed));
        await keepDeadLetters(trx, deadLetters, outbox);
        owing = await oweFailed(trx, context, bumps, claimed);
      }
      const causes = new Map<string, number>();
      for (const { cause } of events) causes.set(cause, (causes.get(cause) ?? 0) + 1);
      const durationMs = monotonicMs() - startedAtMs;
      return {
        events: events.length,
        scopes: paths.length,
        paths,
        causes,
        deadLetters,
        durationMs,
        ...(owing && { owing }),
      };
    });
  } catch (error) {
    if (error instanceof InvalidPath) return undefined;
    throw error;
  }
}

/** Rolls a claim back, whose events are claimed again with their rows. */
class InvalidPath extends Error {}
