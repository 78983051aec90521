import type { Knex } from 'knex';

/**
 * Caches on a Redis Cluster. `partition` is its number and their count, `17/64`, or `0` for the only one, as in the keys, so
 * that layouts of different counts stand side by side.
 *
 * `gencache_partition` has the authoritative incarnations of each partition, as `gencache_authority` has them of a cache.
 *
 * `gencache_owed` has the bumps that a partition missed when a relay deleted events, since the partition's primary was away:
 * a row for each such batch and partition, with the position and the time of the oldest event of the batch, and the latest
 * transaction. Vacuum runs often, since rows may live for moments.
 *
 * `gencache_layout` has the numbers of partitions that processes use. A process registers its own before its first load; a
 * bump reaches all of them (docs/protocol.md, rule 24). Each process touches its row every few minutes, and deletes rows
 * that no process has touched for a week.
 */
export async function up(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`
    create table ${at}gencache_partition (
      cache text not null,
      partition text not null,
      redis text not null,
      postgres text not null,
      epoch uuid not null default gen_random_uuid(),
      changed_at timestamptz not null default clock_timestamp(),
      primary key (cache, partition)
    )`);
  await db.raw(`
    create table ${at}gencache_owed (
      cache text not null,
      partition text not null,
      xid xid8 not null,
      seq bigint not null,
      recorded_at timestamptz not null,
      last_xid xid8 not null,
      paths text[] not null,
      primary key (cache, partition, xid, seq)
    ) with (
      autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
      autovacuum_vacuum_insert_threshold = -1
    )`);
  await db.raw(`create index gencache_owed_last on ${at}gencache_owed (cache, last_xid)`);
  await db.raw(`
    create table ${at}gencache_layout (
      cache text not null,
      partitions int not null,
      last_seen_at timestamptz not null default clock_timestamp(),
      primary key (cache, partitions)
    )`);
}

export async function down(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`drop table ${at}gencache_layout`);
  await db.raw(`drop table ${at}gencache_owed`);
  await db.raw(`drop table ${at}gencache_partition`);
}
