/** An event of the outbox, as far as whoever bumps needs it. */
export interface OutboxEvent {
  /** A scope, or what claims to be one; of a lookup, what to bump if it fails. */
  readonly path: string;
  /** `detector UPDATE`: for logs and statistics. */
  readonly cause: string;
  /** All of it, where `path` alone does not say what to bump. */
  readonly unresolved: UnresolvedEvent | null;
}

/** An event with a lookup, or one whose path may not parse. */
export interface UnresolvedEvent {
  readonly xid: string;
  readonly seq: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly row: string;
}

/** Where a path is none: the relay bumps its nearest ancestor that is one. The grammar is in lib/model/key.ts. */
export const SEGMENT = '[a-z][A-Za-z0-9_]{0,63}=[A-Za-z0-9_.~%-]{0,220}';
/**
 * What may be no path, or very long; the first who asks makes sure. To ask for exactly `SEGMENT`, 16 times at most, takes PostgreSQL's
 * regular expressions half a millisecond a row: it counts by states. Without a question mark, which Knex takes for a binding.
 */
const UNRESOLVED_PATH = `(
  event.path !~ '^(|[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*(/[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*)*)$'
  or length(event.path) > 200 or cardinality(string_to_array(event.path, '/')) > 16
  or length(event.path) > 64 and event.path ~ '[A-Za-z0-9_]{65}=')`;

/** The columns of an `OutboxEvent`, of a table `event`. */
export const EVENT = `
  event.path, event.source || ' ' || event.operation as cause,
  case when event.lookup is not null or ${UNRESOLVED_PATH} then jsonb_build_object(
    'xid', event.xid::text, 'seq', event.seq::text, 'lookup', event.lookup, 'args', event.args,
    'row', to_jsonb(event)::text) end as unresolved`;
