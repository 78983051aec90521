import type { Knex } from 'knex';

/**
 * The outbox: events, recorded in the transaction that makes the change (ladder step 2), and the tables and functions of
 * triggers.
 *
 * `xid` is the top-level id of the recording transaction: by it a relay separates events that it has seen from events that
 * an open transaction may still add, and a writer finds its own events. `path` is a scope, `''` for global. An event with a
 * `lookup` names rows in `args`; that function looks their scopes up after the commit, and `path` is the scope to bump if
 * the lookup fails. `held_by` is the table of a migration lock: the event is bumped again and again until that lock is
 * free, and once after.
 *
 * Vacuum runs often, since rows live for milliseconds.
 */
export async function up(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`
    create table ${at}gencache_outbox (
      cache text not null,
      xid xid8 not null default pg_current_xact_id(),
      seq bigint generated always as identity (cache 32),
      path text not null,
      lookup text,
      args jsonb,
      held_by text,
      source text not null,
      operation text not null,
      application text not null default current_setting('application_name'),
      recorded_at timestamptz not null default clock_timestamp(),
      primary key (cache, xid, seq)
    ) with (
      autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
      autovacuum_vacuum_insert_threshold = -1
    )`);
  await db.raw(`create index gencache_outbox_held on ${at}gencache_outbox (cache) where held_by is not null`);

  // Dead letters: events that could not be understood. Their nearest valid ancestor was bumped first.
  await db.raw(`
    create table ${at}gencache_dead_letter (
      cache text not null,
      xid xid8 not null,
      seq bigint not null,
      path text not null,
      lookup text,
      args jsonb,
      source text not null,
      operation text not null,
      application text not null,
      recorded_at timestamptz not null,
      bumped text not null,
      reason text not null,
      failed_at timestamptz not null default clock_timestamp(),
      primary key (cache, xid, seq)
    )`);

  // The installed trigger definitions, for checks, repairs and removal.
  await db.raw(`
    create table ${at}gencache_trigger (
      cache text not null,
      table_schema text not null,
      table_name text not null,
      name text not null,
      definition jsonb not null,
      installed_at timestamptz not null default clock_timestamp(),
      primary key (cache, table_schema, table_name, name)
    )`);

  // The migrations that narrowed their bumps: committed rows, which the trigger on the migrations table deletes.
  await db.raw(`
    create table ${at}gencache_narrowed (
      cache text not null,
      migration text not null,
      paths text[] not null,
      primary key (cache, migration)
    )`);

  // An id's text in a path, as in lib/model/id-kind.ts.
  await db.raw(`
    create function ${at}gencache_escape(value text) returns text
    language plpgsql immutable strict parallel safe as $$
    declare
      bytes bytea := convert_to(value, 'UTF8');
      escaped text;
    begin
      select coalesce(string_agg(
        case
          when byte between 48 and 57 or byte between 65 and 90 or byte between 97 and 122 or byte in (45, 46, 95)
            then chr(byte)
          else '%' || lpad(upper(to_hex(byte)), 2, '0')
        end, '' order by i), '')
      into escaped
      from (select i, get_byte(bytes, i) as byte from generate_series(0, length(bytes) - 1) as i) as each;
      return case
        when length(escaped) <= 200 then escaped
        else '%h' || encode(sha256(convert_to(escaped, 'UTF8')), 'hex')
      end;
    end $$`);

  // The nearest common ancestor of two paths, or the path itself where they are equal.
  await db.raw(`
    create function ${at}gencache_common_ancestor(a text, b text) returns text
    language plpgsql immutable strict parallel safe as $$
    declare
      ours text[] := string_to_array(a, '/');
      theirs text[] := string_to_array(b, '/');
      same int := 0;
    begin
      while same < cardinality(ours) and ours[same + 1] = theirs[same + 1] loop
        same := same + 1;
      end loop;
      return array_to_string(ours[1:same], '/');
    end $$`);
}

export async function down(db: Pick<Knex, 'raw'>, at = ''): Promise<void> {
  await db.raw(`drop function ${at}gencache_common_ancestor(text, text)`);
  await db.raw(`drop function ${at}gencache_escape(text)`);
  for (const table of ['narrowed', 'trigger', 'dead_letter', 'outbox'])
    await db.raw(`drop table ${at}gencache_${table}`);
}
