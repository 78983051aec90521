/**
 * The incarnation of PostgreSQL, `<system>/<timeline>/<start>/<boot>` (docs/protocol.md, rule 11). It has two halves:
 *
 *     life     start of the postmaster, boot id     changes whenever commits may have been lost; each survey reads it
 *     lineage  system identifier, timeline          tells which of two lives succeeded the other; read once in each life
 *
 * A life has one lineage: the timeline changes only by a recovery, which empties `gencache_boot` or starts the postmaster.
 * So the lineage needs no place in the survey, whose functions a host may refuse: `pg_control_system` may be revoked, and
 * Aurora's WAL functions raise an error while `wal_level` is below `logical`. An unknown part is `?`.
 */
import type { Knex } from 'knex';
import { query } from '../postgres/query.js';
import { isSqlstate, serverMessageOf, sqlstateOf } from '../postgres/sqlstate.js';
import { quoted } from '../postgres/identifiers.js';
import { currentRole } from './missing-rights.js';
import { type OutboxOptions, qualifier } from './location.js';

/** A part of the lineage that PostgreSQL does not tell this role. */
export interface LineageGap {
  readonly part: 'system identifier' | 'timeline';
  /** The message of the server, with its hint. */
  readonly reason: string;
  /** The statement that lets the role call the functions of this part; undefined where they raise an error themselves. */
  readonly grant: string | undefined;
}

/** An incarnation, and the parts of it that this role could not read. */
export interface Incarnation {
  readonly postgres: string;
  readonly gaps: readonly LineageGap[];
}

const UNKNOWN = '?';

const PARTS = [
  {
    part: 'system identifier',
    column: 'system',
    functions: 'pg_catalog.pg_control_system()',
    sql: `(select system_identifier::text from pg_catalog.pg_control_system())`,
  },
  {
    part: 'timeline',
    column: 'timeline',
    functions: 'pg_catalog.pg_current_wal_lsn(), pg_catalog.pg_walfile_name(pg_lsn)',
    sql: `substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)`,
  },
] as const;

/** SQL for the life of PostgreSQL, as text; null right after a crash, until the boot is noted. */
export function lifeSql(options: OutboxOptions): string {
  return `(select concat_ws('/', extract(epoch from pg_catalog.pg_postmaster_start_time()), id)
           from ${qualifier(options)}gencache_boot)`;
}

/**
 * The incarnation of this life; undefined if PostgreSQL has another life by now. One query, or four
 * where a function is refused or raises an error. Rejects as the source does for any other reason.
 */
export async function readIncarnation(
  db: Knex,
  life: string,
  { outbox, answerMs }: { readonly outbox: OutboxOptions; readonly answerMs: number },
): Promise<Incarnation | undefined> {
  const read = (sql: string) =>
    query<{ life: string | null; system: string; timeline: string }>(
      db,
      `select ${lifeSql(outbox)} as life, ${sql}`,
      undefined,
      { answerMs },
    );
  const of = (parts: readonly string[]) => [...parts, life].join('/');
  try {
    const rows = await read(PARTS.map(({ column, sql }) => `${sql} as ${column}`).join(', '));
    const { life: found, system, timeline } = rows[0]!;
    return found === life ? { postgres: of([system, timeline]), gaps: [] } : undefined;
  } catch (error) {
    if (isOfTheMoment(error)) throw error;
  }
  const values: string[] = [];
  const gaps: LineageGap[] = [];
  const role = await currentRole(db);
  for (const { part, column, functions, sql } of PARTS) {
    try {
      const row = (await read(`${sql} as ${column}`))[0]!;
      if (row.life !== life) return undefined;
      values.push(row[column]);
    } catch (error) {
      if (isOfTheMoment(error)) throw error;
      values.push(UNKNOWN);
      const isRefused = isSqlstate(error, 'insufficient privilege');
      const grant = isRefused ? `grant execute on function ${functions} to ${quoted(role)};` : undefined;
      gaps.push({ part, reason: reasonOf(error as Error), grant });
    }
  }
  return { postgres: of(values), gaps };
}

/** Whether both are the same life of one PostgreSQL, whatever is known of its lineage. */
export function isSameLife(one: string, other: string): boolean {
  return partsOf(one).slice(2).join('/') === partsOf(other).slice(2).join('/');
}

/** The incarnation with the parts of its lineage that another role has read in the same life. */
export function completed(postgres: string, known: string | undefined): string {
  if (known === undefined || !isSameLife(postgres, known)) return postgres;
  const others = partsOf(known);
  return partsOf(postgres)
    .map((part, i) => (part === UNKNOWN ? others[i] : part))
    .join('/');
}

/** Whether its lineage is known, so that a successor can be told from it. */
export function hasLineage(postgres: string): boolean {
  return !partsOf(postgres).includes(UNKNOWN);
}

/** The timelines of both, if the other one succeeded this one; undefined if it did not, or if a lineage is unknown. */
export function succession(
  postgres: string,
  other: string,
): { readonly own: string; readonly later: string } | undefined {
  if (!hasLineage(postgres) || !hasLineage(other)) return undefined;
  const [system, own] = partsOf(postgres);
  const [otherSystem, later] = partsOf(other);
  return system === otherSystem && own! < later! ? { own: own!, later: later! } : undefined;
}

function partsOf(postgres: string): string[] {
  return postgres.split('/');
}

/** An error of the moment says nothing about the function: no session, a conflict, no memory, a timeout. */
function isOfTheMoment(error: unknown): boolean {
  const sqlstate = sqlstateOf(error);
  return sqlstate === undefined || ['08', '40', '53', '57', '58'].includes(sqlstate.slice(0, 2));
}

function reasonOf(error: Error): string {
  const { hint } = error as { hint?: string };
  return hint === undefined ? serverMessageOf(error) : `${serverMessageOf(error)} (${hint})`;
}
