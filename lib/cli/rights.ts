import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from '../knex/outbox/location.js';
import { quoted } from '../knex/postgres/identifiers.js';

/** What a relay does with each table. Others read them, and those with `bump(..., { trx })` insert events. */
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  gencache_release: ['SELECT'],
  gencache_outbox: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  gencache_dead_letter: ['SELECT', 'INSERT'],
  gencache_authority: ['SELECT', 'INSERT', 'UPDATE'],
  gencache_boot: ['SELECT', 'INSERT'],
  gencache_trigger: ['SELECT'],
};

/** Rights on one of the outbox's tables that a role has not. */
export interface Lacking {
  /** As SQL writes it, with its schema. */
  readonly target: string;
  readonly table: string;
  readonly rights: readonly string[];
}

/** Which of a relay's rights this role lacks on the tables that are there. One query. */
export async function lackingRights(db: Knex, outbox: OutboxOptions): Promise<Lacking[]> {
  const wanted = Object.entries(NEEDED).flatMap(([table, rights]) => rights.map((right) => ({ table, right })));
  const { rows } = await db.raw<{ rows: { schema: string; table: string; rights: string[] }[] }>(
    `select nspname as schema, name as table, array_agg("right" order by "right") as rights
     from unnest(?::text[], ?::text[]) as wanted (name, "right")
     join pg_class on pg_class.oid = to_regclass(? || name)
     join pg_namespace on pg_namespace.oid = relnamespace
     where not has_table_privilege(pg_class.oid, "right")
     group by 1, 2 order by 1, 2`,
    [
      wanted.map(({ table }) => table),
      wanted.map(({ right }) => right),
      qualifier(outbox),
    ] as unknown as Knex.RawBinding[],
  );
  return rows.map(({ schema, table, rights }) => ({ target: `${quoted(schema)}.${table}`, table, rights }));
}

export function describeLacking(lacking: readonly Lacking[]): string {
  return lacking.map(({ table, rights }) => `${rights.join(', ')} on ${table}`).join('; ');
}

/** The statements that give them, for the owner of the tables. */
export function grants(role: string, lacking: readonly Lacking[]): string {
  return lacking
    .map(({ target, rights }) => `grant ${rights.join(', ').toLowerCase()} on ${target} to ${quoted(role)};`)
    .join(' ');
}

export async function currentRole(db: Knex): Promise<string> {
  const { rows } = await db.raw<{ rows: { role: string }[] }>('select current_user as role');
  return rows[0]!.role;
}
