/** Names of tables, columns and schemas: as SQL writes them, and as messages show them. */

/** An identifier, whatever it holds. */
export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** A table with its schema, as SQL writes it: `"app"."workflow"`. */
export function qualifiedName({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${quoted(schema)}.${quoted(name)}`;
}

/** A name for messages: on one line, whatever it holds. */
export function displayName(schema: string | null, ...names: string[]): string {
  return [...(schema === null ? [] : [schema]), ...names]
    .map((name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : JSON.stringify(name)))
    .join('.');
}
