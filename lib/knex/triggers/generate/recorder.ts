import { type RowOperation, watchedColumns } from '../trigger-definition.js';
import { manyRowsSource } from './many-rows.js';
import { oneRowSource } from './one-row.js';
import { usualRowSource } from './usual-row.js';
import { type RecorderInput, TRANSITION_ALIASES } from './rows.js';
import { recordSafely, rowSecurityActive } from '../../outbox/record-safely.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * Generates the body of the PL/pgSQL function that records the changes of a statement (ladder step 3).
 *
 *     off         after `set gencache.events = 'off'` it returns at once
 *     usual       one row, whose ids stay the same: one statement records it (`usual-row.ts`)
 *     TRUNCATE    one event, for the path that the definition names
 *     compute     changed rows -> their distinct ids, old and new -> paths, or images of rows to look up
 *     record      an event for each path, or for the nearest common ancestor; one for each 100 images
 *
 * No loop over rows: each operation is one query on the transition tables, a short one for a single row, which fails
 * for any other number of rows. Then the query for many rows runs. An UPDATE of several rows pairs old and new rows by the
 * primary key, so that unchanged rows record nothing; without a primary key all rows are recorded. An UPDATE of more than a
 * thousand rows reads the first ones before all.
 *
 * **Invariant.** A statement that changed a row commits with events that cover every scope of its old and its new row, or
 * does not commit. The computation runs in blocks of its own. A failure (a column was renamed) records one global event and
 * does not break the write. The blocks write nothing, so PostgreSQL assigns them no subtransaction id. The inserts run outside
 * of them.
 *
 * The full join can't become a nested loop, for whatever number of rows the cached plan was made.
 */
export function recorderSource(recorder: RecorderInput): string {
  const { definition, at } = recorder;
  const cache = literal(definition.cache);
  const insert = `insert into ${at}gencache_outbox (cache, path, lookup, args, source, operation)`;
  const cause = `pg_catalog.format('%I.%I', tg_table_schema, tg_table_name), tg_op`;
  const count = (list: string) => `pg_catalog.cardinality(${list}) operator(pg_catalog.`;
  const paths = `if ${count('gencache_paths')}=) 1 then
    ${insert}
    values (${cache}, gencache_paths[1], null, gencache_args, ${cause});
  elsif ${count('gencache_paths')}>) 1 then
    ${insert}
    select ${cache}, path, null, null, ${cause}
    from pg_catalog.unnest(gencache_paths) as path;
  end if;`;
  const lookups = `
  if ${count('gencache_lookups')}=) 1 then
    ${insert}
    values (${cache}, '', gencache_lookups[1], gencache_images[1], ${cause});
  elsif ${count('gencache_lookups')}>) 1 then
    ${insert}
    select ${cache}, '', lookup, args, ${cause}
    from rows from (pg_catalog.unnest(gencache_lookups), pg_catalog.unnest(gencache_images)) as each (lookup, args);
  end if;`;
  const looksUp = definition.bumps.some(({ lookUp }) => lookUp !== null);
  return `
#variable_conflict use_column
declare
  gencache_many boolean;
  gencache_settings pg_catalog.text[];
  gencache_count bigint;
  gencache_some pg_catalog.text[];
  gencache_paths pg_catalog.text[];
  gencache_lookups pg_catalog.text[];
  gencache_packs pg_catalog.jsonb[];
  gencache_images pg_catalog.jsonb[];
  gencache_error pg_catalog.text;
  gencache_args pg_catalog.jsonb;
begin
  if pg_catalog.current_setting('gencache.events', true) operator(pg_catalog.=) 'off' then
    return null;
  end if;${usualRow(recorder, insert)}
  ${computed(recorder)}
  if tg_op operator(pg_catalog.=) 'TRUNCATE' then
    gencache_paths := array[${literal(definition.truncate)}];
  elsif gencache_error is not null then
    gencache_paths := array[''];
    gencache_lookups := null;
    gencache_args := pg_catalog.jsonb_build_object('error', gencache_error);
  end if;
  ${recordSafely(at, looksUp ? paths + lookups : paths)}
  return null;
end`;
}

const FAILURE = `sqlstate operator(pg_catalog.||) ': ' operator(pg_catalog.||) sqlerrm`;

/**
 * The settings of the SQL for many rows, which sets them for itself: as clauses of the function they take 4 of the 26 us of a
 * single-row UPDATE's trigger (PostgreSQL 15, 2 cores, 2026-11). Only built-in functions are found without a schema: other roles may be able to
 * create functions in the outbox's schema, and a `cardinality(text[])` there would win over the built-in
 * `cardinality(anyarray)`, and run with the owner's rights. JIT compilation, which an estimate of 10,000 rows triggers, took
 * 50 ms where the query takes 15. A merge join sorts whole rows first, and takes twice as long as a hash
 * join.
 */
export const RECORDER_SETTINGS = { search_path: 'pg_catalog, pg_temp', jit: 'off', enable_mergejoin: 'off' };

/** `rows` under these settings. A failure takes the settings back as well, with the block. */
function underSettings(rows: string): string {
  const names = Object.keys(RECORDER_SETTINGS);
  const set = (values: readonly string[]) =>
    names.map((name, i) => `pg_catalog.set_config('${name}', ${values[i]!}, true)`).join(', ');
  return `
        gencache_settings := array[${names.map((name) => `pg_catalog.current_setting('${name}')`).join(', ')}];
        perform ${set(Object.values(RECORDER_SETTINGS).map(literal))};${rows}
        perform ${set(names.map((_, i) => `gencache_settings[${i + 1}]`))};`;
}

/** SQL that records the usual write and returns. */
function usualRow(recorder: RecorderInput, insert: string): string {
  if (recorder.level === 'row') return '';
  const writes = recorder.definition.operations.flatMap((operation) => {
    const source = usualRowSource(recorder, operation, insert);
    return source === undefined ? [] : [whenIt(operation, source)];
  });
  if (writes.length === 0) return '';
  return `
  if not ${rowSecurityActive(recorder.at)} then${writes.join('')}
    if found then
      return null;
    end if;
  end if;`;
}

/** SQL that computes the lists, or the error. */
function computed(recorder: RecorderInput): string {
  const { operations } = recorder.definition;
  const watched = watchedColumns(recorder.definition);
  const oneRow = `begin${operations.map((operation) => whenIt(operation, oneRowSource(recorder, operation, watched))).join('')}
  exception when others then`;
  if (recorder.level === 'row') {
    return `${oneRow}
    gencache_error := ${FAILURE};
  end;`;
  }
  const fallback = watched === null && operations.includes('update') ? comparingImagesOnly(recorder) : '';
  return `${oneRow}
    gencache_many := true;
  end;
  if gencache_many then
    begin${operations.map((operation) => whenIt(operation, manyRows(recorder, operation, watched))).join('')}
    exception ${fallback}when others then
      gencache_error := ${FAILURE};
    end;
  end if;`;
}

function whenIt(operation: RowOperation, source: string): string {
  return `
    if tg_op operator(pg_catalog.=) '${operation.toUpperCase()}' then${source}
    end if;`;
}

/** `compared`: the columns to compare before the image of the row; null: all columns. */
function manyRows(recorder: RecorderInput, operation: RowOperation, compared: readonly string[] | null): string {
  const bumps = recorder.definition.bumps.map((_, i) => manyRowsSource(recorder, operation, compared, i));
  return `
      if ${TRANSITION_ALIASES[operation].map((side) => `exists (select from ${side})`).join(' or ')} then
        gencache_paths := null;
        gencache_lookups := null;
        gencache_images := null;${underSettings(bumps.join(''))}
      end if;`;
}

/**
 * For an UPDATE after a column that only the comparison names was dropped or renamed, or got a type without an operator
 * that is found here: the images of rows show the changes as well, in twice the time. Otherwise each UPDATE after that
 * would record a global event.
 */
function comparingImagesOnly(recorder: RecorderInput): string {
  return `when undefined_column or undefined_function then
      if tg_op operator(pg_catalog.<>) 'UPDATE' then
        gencache_error := ${FAILURE};
      end if;
      begin${whenIt('update', manyRows(recorder, 'update', []))}
      exception when others then
        gencache_error := ${FAILURE};
      end;
    `;
}
