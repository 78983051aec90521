/** Bumps that a partition owes: its primary was away when a relay deleted their events (docs/protocol.md, rule 9a). */
import type { Knex } from 'knex';
import { query, verbatim } from '../postgres/query.js';
import { literal } from '../postgres/sql-text.js';
import { type RecordedAt, recordedAtSql } from './event.js';
import { type OutboxOptions, qualifier } from './location.js';
import { isOutboxMissing } from './missing-outbox.js';
import { checkHiddenTables, type MayHide, mayHideSql } from './row-security.js';

/**
 * The bumps that one partition missed of a batch, with the position and the time of the oldest event of the batch: a
 * check that may have seen one of its events must count all of them as seen (`event-ages.ts`).
 */
export interface OwedBumps extends RecordedAt {
  /** The latest transaction of the batch. */
  readonly lastXid: string;
  /** `17/64`. */
  readonly partition: string;
  /** Scopes; `''` is the global scope of this partition alone. */
  readonly paths: readonly string[];
}

/** Keeps bumps that partitions owe, in the transaction that deletes their events. One statement. */
export async function keepOwed(
  trx: Knex,
  owed: readonly OwedBumps[],
  { cache, outbox }: { readonly cache: string; readonly outbox: OutboxOptions },
): Promise<void> {
  await query(
    trx,
    `insert into ${qualifier(outbox)}gencache_owed (cache, partition, xid, seq, recorded_at, last_xid, paths)
     select ?, partition, xid, seq, "recordedAt", "lastXid", paths
     from jsonb_to_recordset(cast(? as jsonb))
       as owed (partition text, xid xid8, seq bigint, "recordedAt" timestamptz, "lastXid" xid8, paths text[])`,
    [cache, JSON.stringify(owed)],
  );
}

export interface ClaimOwedOptions {
  readonly cache: string;
  readonly partitions: readonly string[];
  /** Most rows of each partition. */
  readonly max: number;
  readonly outbox: OutboxOptions;
}

/**
 * The statement that claims what these partitions owe, the oldest first, as `claimSql` claims events: it deletes the rows in a
 * transaction that commits after their bumps. It skips rows that other relays have claimed. Without parameters.
 */
export function claimOwedSql({ cache, partitions, max, outbox }: ClaimOwedOptions): string {
  const owed = `${qualifier(outbox)}gencache_owed`;
  return verbatim(
    `delete from ${owed} where ctid = any(array(
       select found.row from unnest(array[${partitions.map(literal).join()}]::text[]) as wanted (name), lateral (
         select ctid as row from ${owed} where cache = ${literal(cache)} and partition = wanted.name
         order by xid, seq limit ${max} for update skip locked) as found))
     returning partition, xid::text, seq::text, ${recordedAtSql('recorded_at')}, last_xid::text as "lastXid", to_json(paths) as paths`,
  );
}

/** Bumps that a partition owes a transaction. */
export interface OwedPaths {
  readonly partition: string;
  readonly paths: readonly string[];
}

/**
 * The bumps that partitions owe for batches which may have had events of this transaction. Read after the transaction's own
 * events: an event that is missing there, and here, was bumped. One query by index, without locks. Throws HiddenRowsError.
 */
export async function owedFor(db: Knex, cache: string, xid: string, outbox: OutboxOptions): Promise<OwedPaths[]> {
  return owedWhere(db, 'cache = ? and last_xid >= ?::xid8 and xid <= ?::xid8', [cache, xid, xid], outbox);
}

/** Whether any partition owes bumps. One query. Throws HiddenRowsError. */
export async function isOwed(db: Knex, cache: string, outbox: OutboxOptions): Promise<boolean> {
  return (await owedWhere(db, 'cache = ? limit 1', [cache], outbox)).length > 0;
}

/** None in an outbox of an older release, where no relay knows of them. */
async function owedWhere(
  db: Knex,
  where: string,
  bindings: readonly string[],
  outbox: OutboxOptions,
): Promise<OwedPaths[]> {
  const tables = ['owed'] as const;
  const rows = await query<OwedPaths & { readonly mayHide: MayHide | null }>(
    db,
    `select partition, to_json(paths) as paths, "mayHide" from (select ${mayHideSql(outbox, tables)} as "mayHide") as hidden
     left join (select partition, paths from ${qualifier(outbox)}gencache_owed where ${where}) as owed on true`,
    bindings,
  ).catch((error: unknown) => {
    if (isOutboxMissing(error)) return [];
    throw error;
  });
  if (rows.length === 0) return [];
  await checkHiddenTables(db, outbox, { mayHide: rows[0]!.mayHide, tables });
  return rows.filter(({ partition }) => partition !== null);
}
