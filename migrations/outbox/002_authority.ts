import type { Knex } from 'knex';

/**
 * Which incarnation of each cache's Redis, and of this PostgreSQL, counts (ladder step 4a); `epoch` is another one
 * whenever they were counted anew, also for those that had counted before.
 *
 * `gencache_boot` is unlogged, so that a crash empties it, also one of a single backend, after which the postmaster
 * goes on and its start time tells nothing, but commits that were not yet flushed are lost all the same. A promoted
 * standby has it empty, too.
 */
export async function up(db: Knex, at = ''): Promise<void> {
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

export async function down(db: Knex, at = ''): Promise<void> {
  await db.raw(`drop table ${at}gencache_boot`);
  await db.raw(`drop table ${at}gencache_authority`);
}
