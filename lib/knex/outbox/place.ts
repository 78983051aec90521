/** Where the outbox is. */
export interface OutboxOptions {
  /** The schema of its tables. Default: where the connection's search path leads. */
  readonly schema?: string;
}

/** What stands before the name of a table: `"audit".`, or nothing. */
export function qualifier({ schema }: OutboxOptions): string {
  return schema === undefined ? '' : `${quoted(schema)}.`;
}

/** An identifier, whatever it holds. */
export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
