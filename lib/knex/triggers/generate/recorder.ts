import { type RowOperation, watchedColumns } from '../trigger-definition.js';
import { manyRowsSource } from './many-rows.js';
import { oneRowSource } from './one-row.js';
import { type RecorderInput, TRANSITION_ALIASES } from './rows.js';
import { recordSafely } from '../../outbox/record-safely.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * Generates the body of the PL/pgSQL function that records the changes of a statement (ladder step 3).
 *
 *     off         after `set gencache.events = 'off'` it returns at once
 *     TRUNCATE    one event, for the path that the definition names
 *     compute     changed rows -> their distinct ids, old and new -> paths, or images of rows to look up
 *     record      an event for each path, or for the nearest common ancestor; one for each 100 images
 *
 * No loop over rows: each operation is one query on the transition tables, a short one for a single row. An UPDATE of
 * several rows pairs old and new rows by the primary key, so that unchanged rows record nothing; without a primary key all
 * rows are recorded. An UPDATE of more than a thousand rows reads the first ones before all.
 *
 * **Invariant.** A statement that changed a row commits with events that cover every scope of its old and its new row, or
 * does not commit. The computation runs in a block of its own, whose failure (a column was renamed) records one global
 * event and does not break the write; the block writes nothing, so PostgreSQL assigns it no subtransaction id. The inserts
 * run outside of the block.
 *
 * The full join can't become a nested loop, for whatever number of rows the cached plan was made.
 */
export function recorderSource(recorder: RecorderInput): string {
  const { definition, at } = recorder;
  const cache = literal(definition.cache);
  const insert = `insert into ${at}gencache_outbox (cache, path, lookup, args, source, operation)`;
  const cause = `format('%I.%I', tg_table_schema, tg_table_name), tg_op`;
  const watched = watchedColumns(definition);
  const record = `if cardinality(gencache_paths) = 1 then
    ${insert}
    values (${cache}, gencache_paths[1], null, gencache_args, ${cause});
  elsif cardinality(gencache_paths) > 1 then
    ${insert}
    select ${cache}, path, null, null, ${cause}
    from unnest(gencache_paths) as path;
  end if;
  if cardinality(gencache_lookups) = 1 then
    ${insert}
    values (${cache}, '', gencache_lookups[1], gencache_images[1], ${cause});
  elsif cardinality(gencache_lookups) > 1 then
    ${insert}
    select ${cache}, '', lookup, args, ${cause}
    from unnest(gencache_lookups, gencache_images) as each (lookup, args);
  end if;`;
  return `
declare
  gencache_many boolean;
  gencache_count bigint;
  gencache_some text[];
  gencache_paths text[] := '{}';
  gencache_lookups text[] := '{}';
  gencache_packs jsonb[];
  gencache_images jsonb[] := '{}';
  gencache_error text;
  gencache_args jsonb;
begin
  if current_setting('gencache.events', true) = 'off' then
    return null;
  end if;
  if tg_op = 'TRUNCATE' then
    gencache_paths := array[${literal(definition.truncate)}];
  end if;
  begin${definition.operations.map((operation) => computed(recorder, operation, watched)).join('')}
  exception ${watched === null && definition.operations.includes('update') ? comparingImagesOnly(recorder) : ''}when others then
    gencache_error := sqlstate || ': ' || sqlerrm;
  end;
  if gencache_error is not null then
    gencache_paths := array[''];
    gencache_lookups := '{}';
    gencache_args := jsonb_build_object('error', gencache_error);
  end if;
  ${recordSafely(at, record)}
  return null;
end`;
}

/** `compared`: the columns to compare before the image of the row; null: all columns. */
function computed(recorder: RecorderInput, operation: RowOperation, compared: readonly string[] | null): string {
  const { definition, level } = recorder;
  const [first, ...more] = TRANSITION_ALIASES[operation].map((side) => `exists (select from ${side})`);
  const any = [first, ...more].join(' or ');
  const bumps = definition.bumps.map((_, i) => manyRowsSource(recorder, operation, compared, i));
  return `
    if tg_op = '${operation.toUpperCase()}' then${oneRowSource(recorder, operation, compared)}${
      level === 'row'
        ? ''
        : `
      if gencache_many is null then
        gencache_many := ${any};
      end if;
      if gencache_many then
        gencache_paths := '{}';
        gencache_lookups := '{}';
        gencache_images := '{}';${bumps.join('')}
      end if;`
    }
    end if;`;
}

/**
 * For an UPDATE after a column that only the comparison names was dropped or renamed, or got a type without an operator
 * that is found here: the images of rows show the changes as well, in twice the time. Otherwise each UPDATE after that
 * would record a global event.
 */
function comparingImagesOnly(recorder: RecorderInput): string {
  return `when undefined_column or undefined_function then
    gencache_paths := '{}';
    gencache_lookups := '{}';
    gencache_images := '{}';
    if tg_op <> 'UPDATE' then
      gencache_error := sqlstate || ': ' || sqlerrm;
    end if;
    begin${computed(recorder, 'update', [])}
    exception when others then
      gencache_error := sqlstate || ': ' || sqlerrm;
    end;
  `;
}
