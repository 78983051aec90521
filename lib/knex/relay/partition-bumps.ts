/**
 * The bumps of a relay in several partitions (docs/protocol.md, rules 9a and 10a).
 *
 *     claim  [lookups]  bump in the trusted partitions  lock their authority  keep what the others owe  COMMIT
 *
 * **Invariant.** When the claim commits, each of its bumps was taken by the authoritative server of its partition, or is owed
 * by the partition.
 *
 * A partition that is known to be away is not tried, and one that is late holds up the others for a moment, once: then it is
 * not trusted. If no partition is trusted in the end, the store is away, and the claim is rolled back, as with one partition.
 */
import type { Knex } from 'knex';
import { topmost } from '../../model/path.js';
import type { LocatedScope, Partition } from '../../ports/partitions.js';
import { StoreUnavailableError } from '../../ports/store.js';
import { withoutStragglers } from '../../async/without-stragglers.js';
import { BUMP_SCOPES_MAX, bumpPartition, type PartitionBump } from '../../write/bump-scopes.js';
import type { RecordedAt } from '../outbox/event.js';
import { claimOwedSql, keepOwed, type OwedBumps } from '../outbox/owed.js';
import { authoritativeRedisOf } from '../outbox/partition-authority.js';
import { displaced } from './authoritative-bump.js';
import { inBumpTransaction } from './bump-transaction.js';
import type { RelayContext } from './relay-context.js';

/** The bumps of one partition, and the oldest event that they are made for. */
export interface DueBumps {
  readonly partition: Partition;
  readonly scopes: readonly LocatedScope[];
  readonly oldest: RecordedAt;
}

/** The outcome in one partition: the server that took the bumps, or the error. */
interface TriedBumps extends DueBumps {
  readonly outcome: { readonly server: string | undefined } | Error;
}

/** Rows of one partition that are claimed at once; each has as many scopes as a batch, at most. */
const OWED_ROWS_MAX = 16;
/** Scopes that a partition owes in one row: beyond, its global scope stands for them. */
const OWED_PATHS_MAX = 10_000;

/** Bumps in the trusted partitions at the same time. One command for each 1,000 scopes of a partition. Never rejects. */
export async function bumpPartitions(
  { cache, bumpDeadlineMs, onForeign, trust }: RelayContext,
  due: readonly DueBumps[],
): Promise<TriedBumps[]> {
  const bumped = new Map<DueBumps, PartitionBump>();
  const trying = new Map<DueBumps, Promise<void>>();
  const request = { level: cache, deadlineMs: bumpDeadlineMs, ttlMs: 0, afterFailure: 'stop', onForeign } as const;
  for (const each of due) {
    if (!trust!.isTrusted(each.partition)) continue;
    const bump = bumpPartition(request, [each.partition, each.scopes]).then((result) => {
      bumped.set(each, result);
      if (result.failures.length > 0) throw result.failures[0]!;
    });
    trying.set(each, bump);
  }
  const commands = Math.max(0, ...due.map(({ scopes }) => Math.ceil(scopes.length / BUMP_SCOPES_MAX)));
  await withoutStragglers([...trying.values()], trust!.stragglerMs * commands);
  return due.map((each) => {
    const result = bumped.get(each);
    if (result !== undefined && result.failures.length === 0) return { ...each, outcome: { server: result.server } };
    const error = result?.failures[0] ?? unanswered(each.partition, trying.has(each));
    const tried = trying.get(each);
    if (tried !== undefined) trust!.distrustServerOf(each.partition, error, tried);
    return { ...each, outcome: error };
  });
}

/**
 * Locks the authority of the partitions that took their bumps, and keeps what the others owe. Returns their names. Two
 * queries at most. Throws if no partition is trusted.
 */
export async function oweFailed(trx: Knex, context: RelayContext, bumps: readonly TriedBumps[]): Promise<string[]> {
  const { trust } = context;
  const names = bumps.flatMap(({ partition, outcome }) => (outcome instanceof Error ? [] : partition.name));
  const authority = names.length === 0 ? new Map<string, string>() : await authoritativeRedisOf(trx, names, context);
  const failed: DueBumps[] = [];
  let error: Error | undefined;
  for (const { outcome, ...due } of bumps) {
    const { partition } = due;
    const isTaken =
      !(outcome instanceof Error) && outcome.server !== undefined && outcome.server === authority.get(partition.name);
    if (isTaken) continue;
    failed.push(due);
    if (outcome instanceof Error) error ??= outcome;
    else {
      const elsewhere = displaced(partition, outcome.server, authority.get(partition.name));
      trust!.distrust(partition, elsewhere);
      error ??= elsewhere;
    }
  }
  if (failed.length === 0) return [];
  if (!trust!.isAnyTrusted) throw error!;
  await keepOwed(trx, failed.map(owedOf), context);
  return failed.map(({ partition }) => partition.name);
}

/** The bumps of partitions that were owed and are done. */
export interface PaidBumps {
  readonly scopes: number;
  /** Whether partitions may owe more. */
  readonly isFull: boolean;
}

/** Bumps what these partitions owe, oldest first, and deletes it, in a transaction as that of a batch. */
export async function relayOwed(context: RelayContext, partitions: readonly Partition[]): Promise<PaidBumps> {
  const { db, cache, outbox, silenceMaxMs } = context;
  const names = new Map(partitions.map((partition) => [partition.name, partition]));
  const first = claimOwedSql({ cache, partitions: [...names.keys()], max: OWED_ROWS_MAX, outbox });
  return inBumpTransaction(db, { silenceMaxMs, first }, async (trx, found) => {
    const rows = new Map<Partition, OwedBumps[]>();
    for (const row of found as readonly OwedBumps[]) {
      const partition = names.get(row.partition)!;
      rows.set(partition, [...(rows.get(partition) ?? []), row]);
    }
    const due = [...rows].map(([partition, owed]): DueBumps => {
      const paths = fewPaths(owed.flatMap((row) => row.paths));
      return { partition, scopes: context.partitions.scopesIn(partition, paths), oldest: oldestOf(owed) };
    });
    const owing = await oweFailed(trx, context, await bumpPartitions(context, due));
    const paid = due.filter(({ partition }) => !owing.includes(partition.name));
    return {
      scopes: paid.reduce((sum, { scopes }) => sum + scopes.length, 0),
      isFull: paid.some(({ partition }) => rows.get(partition)!.length === OWED_ROWS_MAX),
    };
  });
}

/** The position and the time that no event of these precedes. */
export function oldestOf(events: readonly RecordedAt[]): RecordedAt {
  return events.reduce((oldest, { xid, seq, recordedAt }) => {
    const isBefore = BigInt(xid) < BigInt(oldest.xid) || (xid === oldest.xid && BigInt(seq) < BigInt(oldest.seq));
    const earlier = Date.parse(recordedAt) < Date.parse(oldest.recordedAt) ? recordedAt : oldest.recordedAt;
    return isBefore ? { xid, seq, recordedAt: earlier } : { xid: oldest.xid, seq: oldest.seq, recordedAt: earlier };
  });
}

function owedOf({ partition, scopes, oldest: { xid, seq, recordedAt } }: DueBumps): OwedBumps {
  const paths = fewPaths(scopes.map(({ path }) => path));
  return { partition: partition.name, xid, seq, recordedAt, paths };
}

function fewPaths(paths: readonly string[]): readonly string[] {
  const distinct = topmost(new Set(paths));
  return distinct.length > OWED_PATHS_MAX ? [''] : distinct;
}

function unanswered({ name }: Partition, isTried: boolean): StoreUnavailableError {
  return new StoreUnavailableError(
    isTried
      ? `The primary of partition ${name} is slower than others: its bumps are owed until it answers.`
      : `The primary of partition ${name} is not trusted: its bumps are owed until it is.`,
    isTried,
  );
}
