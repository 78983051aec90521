/**
 * The published declarations of caches, `gencache_declaration`: publishing one, and reading them.
 *
 * A row is kept for each distinct declaration of a cache, with the time when a process last published it. Two rows that
 * are seen at the same time are a rolling deploy, or two applications.
 */
import { createHash } from 'node:crypto';
import type { Knex } from 'knex';
import type { CacheDeclaration } from '../../model/cache-declaration.js';
import { hasFreeConnection } from '../postgres/pooled-connection.js';
import { query, type QueryOptions } from '../postgres/query.js';
import { functionBody, literal } from '../postgres/sql-text.js';
import { type OutboxOptions, qualifier } from './location.js';

const TABLE = 'gencache_declaration';
/** A declaration that no process has published for this time is deleted by the next that publishes. */
const KEPT = '7 days';
/** The statement touches a few rows; a longer silence is a half-open connection, or a lock on the table, in ms. */
const ANSWER_MS = 5_000;

/**
 * Publishes a declaration, and deletes `replaced`, which the same process published before and has added to since. One
 * statement, committed by itself, on a connection that is free: it is never in the way of the application's own queries.
 *
 * A block of PL/pgSQL, since a statement that names the table fails where there is no outbox of this release, or the server
 * is read-only, and PostgreSQL would log that once an hour for each process.
 */
export async function publishDeclaration(
  db: Knex,
  outbox: OutboxOptions,
  declaration: CacheDeclaration,
  replaced: CacheDeclaration | undefined,
): Promise<void> {
  // A transaction in place of a Knex, as tests of applications have it: its snapshot, locks and rollback are the caller's.
  if (db.isTransaction === true) return;
  if (!hasFreeConnection(db)) throw new Error('The pool has no free connection.');
  const table = `${qualifier(outbox)}${TABLE}`;
  const [cache, digest] = [literal(declaration.cache), literal(digestOf(declaration))];
  const block = `
    begin
      if to_regclass(${literal(table)}) is null or current_setting('transaction_read_only')::boolean then
        return;
      end if;
      insert into ${table} as known (cache, digest, declaration) values (${cache}, ${digest}, ${jsonSql(declaration)})
      on conflict (cache, digest) do update
        set last_seen_at = clock_timestamp(), application = excluded.application;
      delete from ${table} where cache = ${cache} and digest <> ${digest} and (
        digest = ${literal(replaced === undefined ? '' : digestOf(replaced))} or
        last_seen_at < clock_timestamp() - interval '${KEPT}');
    end`;
  await query(db, `do ${functionBody(block)}`, undefined, { answerMs: ANSWER_MS });
}

function digestOf(declaration: CacheDeclaration): string {
  return createHash('sha256').update(JSON.stringify(declaration)).digest('hex').slice(0, 32);
}

/** JSON without a character that Knex or a literal would change. */
function jsonSql(value: unknown): string {
  return `convert_from(decode('${Buffer.from(JSON.stringify(value)).toString('hex')}', 'hex'), 'UTF8')::jsonb`;
}

/** A published declaration. */
export interface PublishedDeclaration extends CacheDeclaration {
  /** The application name of the session that published it last. */
  readonly application: string;
  /** How long ago it was published first, and last, in ms. */
  readonly firstSeenMs: number;
  readonly lastSeenMs: number;
}

/**
 * The published declarations of all caches, the last seen first. Empty as well in an outbox of an older release, and where
 * this role may not read them. Two queries, neither of which fails a transaction.
 */
export async function readDeclarations(
  db: Knex,
  outbox: OutboxOptions,
  options: QueryOptions = {},
): Promise<PublishedDeclaration[]> {
  const table = `${qualifier(outbox)}${TABLE}`;
  const [{ isReadable } = { isReadable: false }] = await query<{ isReadable: boolean | null }>(
    db,
    `select has_table_privilege(to_regclass(?), 'select') as "isReadable"`,
    [table],
    options,
  );
  if (isReadable !== true) return [];
  const rows = await query<PublishedDeclaration & { readonly declaration: CacheDeclaration }>(
    db,
    `select declaration, application, ${ageSql('first_seen_at')} as "firstSeenMs", ${ageSql('last_seen_at')} as "lastSeenMs"
     from ${table} order by last_seen_at desc, digest`,
    undefined,
    options,
  );
  return rows.map(({ declaration, ...seen }) => ({ ...declaration, ...seen }));
}

function ageSql(column: string): string {
  return `extract(epoch from clock_timestamp() - ${column})::float8 * 1000`;
}
