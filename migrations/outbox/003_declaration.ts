import type { Knex } from 'knex';

/**
 * What each cache is, as its applications declare it: namespaces with the kinds of their ids, entries, bound, versions. By
 * it, paths are checked that triggers, a relay or a person name.
 *
 * A row for each declaration, told apart by `digest`: during a rolling deploy there are two. Each process that uses the
 * cache touches its row about once an hour, and deletes rows that no process has touched for a week.
 */
export async function up(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`
    create table ${at}gencache_declaration (
      cache text not null,
      digest text not null,
      declaration jsonb not null,
      application text not null default current_setting('application_name'),
      first_seen_at timestamptz not null default clock_timestamp(),
      last_seen_at timestamptz not null default clock_timestamp(),
      primary key (cache, digest)
    )`);
}

export async function down(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`drop table ${at}gencache_declaration`);
}
