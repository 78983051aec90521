import type { CalledFunction } from './relations.js';

/** The current time, and what compares with it. */
const CLOCK =
  /^(?:now|statement_timestamp|transaction_timestamp|clock_timestamp|timeofday)\(|^age\(timestamp with(?:out)? time zone\)$/;
/** Functions of PostgreSQL that read tables, files, sequences, the catalog or the session's settings, whatever they are given. */
const READERS =
  /^(?:query_to_xml|table_to_xml|schema_to_xml|database_to_xml|cursor_to_xml|ts_stat|ts_rewrite\(tsquery,text\)|currval|lastval|current_setting|current_|session_|lo_|loread|pg_(?!typeof\(|column_size\(|size_pretty\()|has_|col_description|obj_description|shobj_description|txid_|inet_|to_reg|row_security_active)/;

/** What can be said of a function in a query: that its answer depends on its arguments, on the time, or on something unseen. */
export function verdictOf({ name, volatility, builtIn }: CalledFunction): 'arguments' | 'clock' | 'unseen' {
  if (builtIn) {
    if (CLOCK.test(name)) return 'clock';
    return volatility === 'v' || READERS.test(name) ? 'unseen' : 'arguments';
  }
  // Its author has declared that it reads no table.
  return volatility === 'i' ? 'arguments' : 'unseen';
}
