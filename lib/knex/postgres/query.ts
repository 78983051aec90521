/**
 * The one way in which gencache queries PostgreSQL.
 *
 * An application configures its Knex and pg for its own queries: a `postProcessResponse` that renames keys or unpacks
 * rows, type parsers that leave JSON as text or make a bigint of an integer. These queries pass by all of it, since a key
 * that is renamed inside an event is a bump that does not happen.
 *
 * The connection, its transaction and the listeners of `query` events stay the application's.
 */
import type { Knex } from 'knex';

/** The values of a query's parameters: for each `?` in order, or by name for each `:name`. */
export type Bindings = readonly unknown[] | Readonly<Record<string, unknown>>;

export interface QueryOptions {
  /** Rejects after this time, in ms, and gives the connection up: it may be half-open. */
  readonly answerMs?: number;
}

/**
 * The rows of a statement; of several statements without bindings, those of the last. Values of the types `boolean`,
 * `smallint`, `integer`, `float8` and JSON arrive as JavaScript has them, all others as PostgreSQL's text, arrays too. Identifiers are part of `sql`:
 * a `??` is not expanded.
 */
export async function query<Row = unknown>(
  db: Knex,
  sql: string,
  bindings?: Bindings,
  { answerMs }: QueryOptions = {},
): Promise<Row[]> {
  // Knex's types know no array parameters, and no options of a raw query; pg has both.
  const raw = plainClient(db).raw(sql, bindings).options({ types: TYPES });
  const response = await (answerMs === undefined ? raw : raw.timeout(answerMs));
  return (Array.isArray(response) ? response.at(-1)! : response).rows as Row[];
}

/** SQL that is sent as it is: Knex takes a question mark for a parameter, also within a quoted identifier. */
export function verbatim(sql: string): string {
  return sql.replaceAll('?', '\\?');
}

interface Response {
  readonly rows: readonly unknown[];
}

interface RawQuery extends PromiseLike<Response | readonly Response[]> {
  options(options: { readonly types: typeof TYPES }): RawQuery;
  timeout(ms: number): RawQuery;
}

interface Client {
  raw(sql: string, bindings: Bindings | undefined): RawQuery;
}

const PLAIN_CLIENTS = new WeakMap<object, Client>();

/** The client of a Knex or of a transaction, without the owner's hook on responses. */
function plainClient(db: Knex): Client {
  const client = db.client as object;
  let plain = PLAIN_CLIENTS.get(client);
  if (plain === undefined) {
    // Knex's own copy, `withUserParams`, refuses a transaction, and misses listeners that are added later.
    plain = Object.create(client, { postProcessResponse: { value: (response: unknown) => response } }) as Client;
    PLAIN_CLIENTS.set(client, plain);
  }
  return plain;
}

const BOOLEAN = 16;
const NUMBERS = [21, 23, 701];
const JSONS = [114, 3802];

const asText = (text: string) => text;

/** pg takes an array in this place for the types of the parameters, so it is an empty one, too. */
const TYPES = Object.assign([] as never[], {
  getTypeParser(oid: number): (text: string) => unknown {
    if (oid === BOOLEAN) return (text) => text === 't';
    if (NUMBERS.includes(oid)) return Number;
    return JSONS.includes(oid) ? JSON.parse : asText;
  },
});
