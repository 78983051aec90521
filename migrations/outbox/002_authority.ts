import type { Knex } from 'knex';

/**
 * The authoritative incarnations of each cache's Redis and of this PostgreSQL (ladder step 4a). `epoch` is a new id whenever
 * authority is taken, also by incarnations that were authoritative before.
 *
 * `gencache_boot` is unlogged, so that a crash empties it. That includes the crash of a single backend, which leaves the
 * postmaster and its start time as they are, although commits that were not flushed are lost. A promoted standby has the
 * table empty, too.
 */
export async function up(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`
    create table ${at}gencache_authority (
      cache text primary key,
      redis text not null,
      postgres text not null,
      epoch uuid not null default gen_random_uuid(),
      changed_at timestamptz not null default clock_timestamp()
    )`);
  await db.raw(`
    create unlogged table ${at}gencache_boot (
      single boolean primary key default true check (single),
      id uuid not null default gen_random_uuid()
    )`);
  await db.raw(`insert into ${at}gencache_boot default values`);
}

export async function down(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`drop table ${at}gencache_boot`);
  await db.raw(`drop table ${at}gencache_authority`);
}
