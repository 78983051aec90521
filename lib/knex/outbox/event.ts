/** An event of the outbox, with the columns that a bump needs. */
export interface OutboxEvent {
  /** A scope, or an invalid path; for an event with a lookup, the scope to bump if the lookup fails. */
  readonly path: string;
  /** For logs and statistics: `detector UPDATE`. */
  readonly cause: string;
  /** The whole event, where `path` alone does not name the scope to bump. */
  readonly unresolved: UnresolvedEvent | null;
}

/** An event with its position and the time of its recording. */
export interface PositionedEvent extends OutboxEvent, RecordedAt {}

export interface RecordedAt {
  readonly xid: string;
  readonly seq: string;
  /** As JSON has it. */
  readonly recordedAt: string;
}

/** An event with a lookup, or one whose path may be invalid: the relay bumps the nearest valid ancestor of that. */
export interface UnresolvedEvent {
  readonly xid: string;
  readonly seq: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly row: string;
}

/**
 * Whether a path may be invalid or very long; the process that bumps checks it exactly. The exact pattern, `SEGMENT` up to 16
 * times, takes PostgreSQL half a millisecond a row, since its regular expressions expand repetitions into states. The pattern
 * has no question mark, which Knex takes for a binding.
 */
const UNRESOLVED_PATH = `(
  event.path !~ '^(|[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*(/[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*)*)$'
  or length(event.path) > 200 or cardinality(string_to_array(event.path, '/')) > 16
  or length(event.path) > 64 and event.path ~ '[A-Za-z0-9_]{65}=')`;

const PATH_AND_CAUSE = `event.path, event.source || ' ' || event.operation as cause`;
const UNRESOLVED = `jsonb_build_object(
    'xid', event.xid::text, 'seq', event.seq::text, 'lookup', event.lookup, 'args', event.args,
    'row', to_jsonb(event)::text)`;

/** The columns of an `OutboxEvent`, of a table `event`. */
export const EVENT = `
  ${PATH_AND_CAUSE},
  case when event.lookup is not null or ${UNRESOLVED_PATH} then ${UNRESOLVED} end as unresolved`;

/**
 * The same, without a look at the paths, for a caller that looks at them itself: PostgreSQL's regular expressions take a third of
 * a claim's time.
 */
export const EVENT_UNCHECKED = `
  ${PATH_AND_CAUSE}, case when event.lookup is not null then ${UNRESOLVED} end as unresolved`;

/** The same, with `unresolved` of every event. */
export const EVENT_WHOLE = `
  ${PATH_AND_CAUSE}, ${UNRESOLVED} as unresolved`;

/** The columns that make it a `PositionedEvent`. */
export const EVENT_POSITION = `event.xid::text, event.seq::text, ${recordedAtSql('event.recorded_at')}`;

export function recordedAtSql(column: string): string {
  return `to_json(${column}) #>> '{}' as "recordedAt"`;
}
