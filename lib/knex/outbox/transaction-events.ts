import type { Knex } from 'knex';
import type { Partitions } from '../../ports/partitions.js';
import type { BumpTarget } from '../../ports/source.js';
import type { BumpServers } from '../../write/bump-scopes.js';
import { EVENT, type OutboxEvent } from './event.js';
import { type OutboxOptions, qualifier } from './location.js';
import { checkHiddenTables, type MayHide, mayHideSql } from './row-security.js';
import { serverSql, type TransactionId } from './transaction-id.js';
import { query } from '../postgres/query.js';
import { queryReadWrite } from '../postgres/read-write.js';
import { ANSWER_MS } from './survey.js';
import { literal } from '../postgres/sql-text.js';

/** The events of a transaction that are still in the outbox, claimed or not. One query, no locks. Throws HiddenRowsError. */
export function eventsOf(db: Knex, cache: string, xid: string, outbox: OutboxOptions): Promise<OutboxEvent[]> {
  const from = `${qualifier(outbox)}gencache_outbox as event where cache = ? and xid = ?::xid8 and held_by is null`;
  return eventsFrom(db, from, [cache, xid], outbox);
}

/** At most `max` events of all other transactions, claimed or held or not. One query, no locks. Throws HiddenRowsError. */
export function waitingEvents(
  db: Knex,
  options: {
    readonly cache: string;
    readonly exceptXid: string;
    readonly max: number;
    readonly outbox: OutboxOptions;
  },
): Promise<OutboxEvent[]> {
  const { cache, exceptXid, max, outbox } = options;
  const from = `(select * from ${qualifier(outbox)}gencache_outbox where cache = ? and xid <> ?::xid8 limit ?) as event`;
  return eventsFrom(db, from, [cache, exceptXid, max], outbox);
}

async function eventsFrom(
  db: Knex,
  from: string,
  bindings: readonly (string | number)[],
  options: OutboxOptions,
): Promise<OutboxEvent[]> {
  const rows = await query<OutboxEvent | { readonly path: null; readonly cause: MayHide }>(
    db,
    `select ${EVENT} from ${from}
     union all select null, ${mayHideSql(options, ['outbox'])}, null where ${mayHideSql(options, ['outbox'])} is not null`,
    bindings,
  );
  const events = rows.filter((row): row is OutboxEvent => row.path !== null);
  const [warning] = rows.filter((row) => row.path === null);
  await checkHiddenTables(db, options, { mayHide: (warning?.cause as MayHide) ?? null, tables: ['outbox'] });
  return events;
}

/**
 * Deletes a transaction's events, if the servers that took their bump are the authoritative incarnations, or there is no
 * authority yet. Events that a relay has claimed are left to it. One statement, which locks the rows of the authority (FOR
 * SHARE): a repair waits for it, or it waits for the repair and then reads the rows' new values. After a crash that lost
 * the transaction, its id may belong to another one: then nothing is deleted; nor where the row of the authority may be hidden.
 */
export async function deleteEventsOf(
  db: Knex,
  xid: TransactionId,
  {
    bumps: { cache, partitions },
    servers,
    outbox,
  }: {
    readonly bumps: Pick<BumpTarget, 'cache' | 'partitions'>;
    readonly servers: BumpServers;
    readonly outbox: OutboxOptions;
  },
): Promise<void> {
  const at = qualifier(outbox);
  const { table, authority, bindings } = !partitions.isPartitioned ? ofOne(partitions, servers) : ofSeveral(servers);
  await queryReadWrite(
    db,
    `with authority as (select ${authority.columns} from ${at}${table} where cache = :cache${authority.where} for share)
     delete from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and seq = any(array(
       select seq from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and held_by is null
       for update skip locked))
     and not exists (select from authority where redis is distinct from ${authority.server})
     and ${serverSql(outbox)} = :postgres
     and not row_security_active(${literal(`${at}${table}`)})`,
    { cache, xid: xid.id, ...bindings, postgres: xid.server ?? null },
    { answerMs: ANSWER_MS },
  );
}

/** The authority of a cache with one partition, and of the partitions of several that these servers have bumped. */
function ofOne({ first }: Partitions, servers: BumpServers) {
  return {
    table: 'gencache_authority',
    authority: { columns: 'redis', where: '', server: ':server' },
    bindings: { server: servers.get(first) ?? null },
  };
}

function ofSeveral(servers: BumpServers) {
  const bumped = [...servers].map(([{ name }, server]) => [name, server ?? null] as const);
  return {
    table: 'gencache_partition',
    authority: {
      columns: 'partition, redis',
      where: ' and partition = any(cast(:names as text[])) order by partition',
      server: `(cast(:servers as jsonb) ->> partition)`,
    },
    bindings: { names: bumped.map(([name]) => name), servers: JSON.stringify(Object.fromEntries(bumped)) },
  };
}
