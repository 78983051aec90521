import type { Knex } from 'knex';

/** The functions that tell the lineage of PostgreSQL. */
export const LINEAGE_FUNCTIONS = ['pg_control_system()', 'pg_current_wal_lsn()', 'pg_walfile_name(pg_lsn)'] as const;

/** Lets roles other than superusers call a function of PostgreSQL's own, or no longer. For private servers. */
export async function allowFunction(db: Knex, name: string, allowed: boolean): Promise<void> {
  await db.raw(
    `${allowed ? 'grant' : 'revoke'} execute on function pg_catalog.${name} ${allowed ? 'to' : 'from'} public`,
  );
}

/** The message and hint of Aurora's WAL functions. */
export const AURORA = {
  message: "wal_level must be set to 'logical'",
  hint: 'WAL control functions cannot be executed when wal_level < logical.',
};

/**
 * Makes `pg_current_wal_lsn` raise an error for every role, as it does on Aurora with `wal_level` below `logical`. A schema
 * earlier in the search path does not reach a qualified name, so the function in `pg_catalog` makes way for another one; a
 * replaced one would not do, since PostgreSQL calls its built-in functions by their number. For private servers.
 */
export async function raiseAsOnAurora(db: Knex): Promise<void> {
  const { message, hint } = AURORA;
  await db.transaction(async (trx) => {
    await trx.raw('set local allow_system_table_mods = on');
    await trx.raw('alter function pg_catalog.pg_current_wal_lsn() rename to pg_current_wal_lsn_of_old');
    await trx.raw(
      `create function pg_catalog.pg_current_wal_lsn() returns pg_lsn language plpgsql as $$
       begin
         raise exception using errcode = '55000', message = '${message.replaceAll("'", "''")}', hint = '${hint}';
       end $$`,
    );
  });
}
