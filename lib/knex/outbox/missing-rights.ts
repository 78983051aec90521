import type { Knex } from 'knex';
import { quoted } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';
import { type OutboxOptions, qualifier } from './location.js';

/** Rights on the tables of the outbox, by table. */
export type NeededRights = Readonly<Record<string, readonly string[]>>;

/** The rights that a relay needs on each table; UPDATE of the outbox is for row locks. */
export const RELAY_RIGHTS: NeededRights = {
  gencache_outbox: ['SELECT', 'UPDATE', 'DELETE'],
  gencache_dead_letter: ['INSERT'],
  gencache_authority: ['SELECT', 'INSERT', 'UPDATE'],
  gencache_boot: ['SELECT', 'INSERT'],
};

/** Those of the relay of a cache with several partitions; UPDATE of what is owed is for row locks. */
export const PARTITIONED_RELAY_RIGHTS: NeededRights = {
  gencache_outbox: RELAY_RIGHTS['gencache_outbox']!,
  gencache_dead_letter: RELAY_RIGHTS['gencache_dead_letter']!,
  gencache_boot: RELAY_RIGHTS['gencache_boot']!,
  gencache_partition: ['SELECT', 'INSERT', 'UPDATE'],
  gencache_owed: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  gencache_layout: ['SELECT'],
};

const DOCTOR_READS: NeededRights = {
  gencache_release: ['SELECT'],
  gencache_dead_letter: ['SELECT', 'INSERT'],
  gencache_trigger: ['SELECT'],
  gencache_declaration: ['SELECT'],
};

/** Those of the doctor, which checks those of a relay, and reads the dead letters, triggers and declarations besides. */
export const DOCTOR_RIGHTS: NeededRights = { ...RELAY_RIGHTS, ...DOCTOR_READS };

/** Those of the doctor of a cache on a Redis Cluster. */
export const PARTITIONED_DOCTOR_RIGHTS: NeededRights = { ...PARTITIONED_RELAY_RIGHTS, ...DOCTOR_READS };

/** The rights that `transaction()` and bumps in a transaction need; UPDATE is for row locks. */
export const WRITER_RIGHTS: NeededRights = {
  gencache_outbox: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  gencache_authority: ['SELECT', 'UPDATE'],
  gencache_boot: ['SELECT', 'INSERT'],
};

/** The rights that an application on a Redis Cluster needs to register its layout. */
export const LAYOUT_RIGHTS: NeededRights = {
  gencache_layout: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
};

/** Those in a cache with several partitions. */
export const PARTITIONED_WRITER_RIGHTS: NeededRights = {
  gencache_outbox: WRITER_RIGHTS['gencache_outbox']!,
  gencache_boot: WRITER_RIGHTS['gencache_boot']!,
  ...LAYOUT_RIGHTS,
  gencache_partition: ['SELECT', 'UPDATE'],
  gencache_owed: ['SELECT'],
};

/** The rights that an application needs to publish what its cache is, and to delete what no process publishes any more. */
export const PUBLISHER_RIGHTS: NeededRights = {
  gencache_declaration: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
};

/** Rights on one of the outbox's tables that a role lacks. */
export interface MissingRights {
  /** The table in SQL, with its schema. */
  readonly target: string;
  readonly table: string;
  readonly rights: readonly string[];
}

/** Those of these rights that this role lacks on the existing tables of the outbox. One query. */
export async function findMissingRights(
  db: Knex,
  outbox: OutboxOptions,
  rights: NeededRights,
): Promise<MissingRights[]> {
  const needed = Object.entries(rights).flatMap(([table, each]) => each.map((right) => ({ table, right })));
  const rows = await query<{ schema: string; table: string; rights: string[] }>(
    db,
    `select nspname as schema, name as table, to_json(array_agg("right" order by "right")) as rights
     from unnest(?::text[], ?::text[]) as needed (name, "right")
     join pg_class on pg_class.oid = to_regclass(? || name)
     join pg_namespace on pg_namespace.oid = relnamespace
     where not has_table_privilege(pg_class.oid, "right")
     group by 1, 2 order by 1, 2`,
    [needed.map(({ table }) => table), needed.map(({ right }) => right), qualifier(outbox)],
  );
  return rows.map(({ schema, table, rights }) => ({ target: `${quoted(schema)}.${table}`, table, rights }));
}

export function describeMissingRights(missing: readonly MissingRights[]): string {
  return missing.map(({ table, rights }) => `${rights.join(', ')} on ${table}`).join('; ');
}

/** The SQL statements with which the owner of the tables grants the missing rights. */
export function grantStatements(role: string, missing: readonly MissingRights[]): string {
  return missing
    .map(({ target, rights }) => `grant ${rights.join(', ').toLowerCase()} on ${target} to ${quoted(role)};`)
    .join(' ');
}

export async function currentRole(db: Knex): Promise<string> {
  const rows = await query<{ role: string }>(db, 'select current_user as role');
  return rows[0]!.role;
}
