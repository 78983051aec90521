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
import type { LocatedScope, Partition, Partitions } from '../../ports/partitions.js';
import { StoreUnavailableError } from '../../ports/store.js';
import { withoutStragglers } from '../../async/without-stragglers.js';
import { BUMP_SCOPES_MAX, bumpPartition, type PartitionBump } from '../../write/bump-scopes.js';
import type { RecordedAt } from '../outbox/event.js';
import { claimOwedSql, keepOwed, type OwedBumps } from '../outbox/owed.js';
import { authoritativeRedisOf } from '../outbox/partition-authority.js';
import { displaced } from './authoritative-bump.js';
import { inBumpTransaction } from './bump-transaction.js';
import type { RelayContext } from './relay-context.js';

/** The events that bumps are made for: the oldest, and the latest transaction. */
export interface EventSpan {
  readonly oldest: RecordedAt;
  readonly lastXid: string;
}

/** The bumps of one partition, and the events that they are made for. */
export interface DueBumps {
  readonly partition: Partition;
  readonly scopes: readonly LocatedScope[];
  readonly span: EventSpan;
}

/** What a claim bumps in every layout. */
export interface ClaimedBumps {
  readonly paths: readonly string[];
  readonly span: EventSpan;
}

/** The outcome in one partition: the server that took the bumps, or the error. */
interface TriedBumps extends DueBumps {
  readonly outcome: { readonly server: string | undefined } | Error;
}

/** Rows of one partition that are claimed at once; each has as many scopes as a batch, at most. */
const OWED_ROWS_MAX = 16;
/** Scopes that a partition owes in one row: beyond, its global scope stands for them. */
const OWED_PATHS_MAX = 10_000;

/** The bumps of a claim, by partition. */
export function dueOf(partitions: Partitions, { paths, span }: ClaimedBumps): DueBumps[] {
  return partitions.group(partitions.locate(paths)).map(([partition, scopes]) => ({ partition, scopes, span }));
}

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
 *
 * A layout that was registered since the last survey owes all of `claimed` (docs/protocol.md, rule 24).
 */
export async function oweFailed(
  trx: Knex,
  context: RelayContext,
  bumps: readonly TriedBumps[],
  claimed: ClaimedBumps | undefined,
): Promise<string[]> {
  if (bumps.length === 0) return [];
  const { trust } = context;
  const names = bumps.flatMap(({ partition, outcome }) => (outcome instanceof Error ? [] : partition.name));
  const { authority, layouts } = await authoritativeRedisOf(trx, names, context);
  const failed: DueBumps[] = claimed === undefined ? [] : unserved(context.partitions, layouts, claimed);
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
  if (!trust!.isAnyTrusted) throw error ?? lostSince();
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
      const lastXid = latestOf(owed.map((row) => row.lastXid));
      return { partition, scopes: context.partitions.scopesIn(partition, paths), span: { ...spanOf(owed), lastXid } };
    });
    const owing = await oweFailed(trx, context, await bumpPartitions(context, due), undefined);
    const paid = due.filter(({ partition }) => !owing.includes(partition.name));
    return {
      scopes: paid.reduce((sum, { scopes }) => sum + scopes.length, 0),
      isFull: paid.some(({ partition }) => rows.get(partition)!.length === OWED_ROWS_MAX),
    };
  });
}

/** `events`: at least one, unless nothing is bumped for them. */
export function spanOf(events: readonly RecordedAt[]): EventSpan {
  return { oldest: oldestOf(events), lastXid: latestOf(events.map(({ xid }) => xid)) };
}

function latestOf(xids: readonly string[]): string {
  return String(xids.reduce((latest, xid) => (BigInt(xid) > latest ? BigInt(xid) : latest), 0n));
}

const NONE: RecordedAt = { xid: String(2n ** 64n - 1n), seq: '0', recordedAt: '9999-12-31T00:00:00Z' };

/** The position and the time that no event of these precedes. */
function oldestOf(events: readonly RecordedAt[]): RecordedAt {
  return events.reduce((oldest, { xid, seq, recordedAt }) => {
    const isBefore = BigInt(xid) < BigInt(oldest.xid) || (xid === oldest.xid && BigInt(seq) < BigInt(oldest.seq));
    const earlier = Date.parse(recordedAt) < Date.parse(oldest.recordedAt) ? recordedAt : oldest.recordedAt;
    return isBefore ? { xid, seq, recordedAt: earlier } : { xid: oldest.xid, seq: oldest.seq, recordedAt: earlier };
  }, NONE);
}

/** The bumps of a claim in layouts that `partitions` does not have yet. */
function unserved(partitions: Partitions, layouts: readonly number[], claimed: ClaimedBumps): DueBumps[] {
  const all = partitions.including([...partitions.others, ...layouts]);
  if (all === partitions) return [];
  const served = new Set(partitions.list);
  return dueOf(all, claimed).filter(({ partition }) => !served.has(partition));
}

function owedOf({ partition, scopes, span: { oldest, lastXid } }: DueBumps): OwedBumps {
  const { xid, seq, recordedAt } = oldest;
  const paths = fewPaths(scopes.map(({ path }) => path));
  return { partition: partition.name, xid, seq, recordedAt, lastXid, paths };
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

function lostSince(): StoreUnavailableError {
  return new StoreUnavailableError(
    'The primaries took the bumps and were lost before the relay could keep what a new layout owes; the events stay.',
    true,
  );
}
