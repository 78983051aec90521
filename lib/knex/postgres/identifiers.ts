/** Names of tables, columns and schemas, in SQL and in messages. */

/** An identifier in SQL, whatever characters it has. */
export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** A table with its schema, in SQL: `"app"."workflow"`. */
export function qualifiedName({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${quoted(schema)}.${quoted(name)}`;
}

/** A name for messages: on one line, whatever characters it has. */
export function displayName(schema: string | null, ...names: string[]): string {
  return [...(schema === null ? [] : [schema]), ...names]
    .map((name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : JSON.stringify(name)))
    .join('.');
}
