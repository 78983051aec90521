/**
 * Reads PostgreSQL's text of a parsed query (`pg_node_tree`): `{LABEL :field value ...}` is a node, `( ... )` a list, `<>`
 * nothing. https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/nodes/read.c
 */

/** A node, a list, a token or nothing. */
export type Tree = TreeNode | readonly Tree[] | string | null;

/** A node: its fields by name. Of a field with several tokens, such as the bytes of a constant, the first. */
export type TreeNode = ReadonlyMap<string, Tree>;

const TOKEN = /[(){}]|"(?:[^"\\]|\\.)*"|(?:[^\s(){}\\]|\\.)+/gs;

/** Throws SyntaxError for a text of another form. */
export function parseTree(text: string): Tree {
  const tokens = text.match(TOKEN) ?? [];
  let at = 0;
  const next = (): string => {
    const token = tokens[at];
    if (token === undefined) throw new SyntaxError('the text of a query ends too early');
    at += 1;
    return token;
  };
  const value = (): Tree => {
    const token = next();
    if (token === '(') {
      const items: Tree[] = [];
      while (tokens[at] !== ')') items.push(value());
      at += 1;
      return items;
    }
    if (token !== '{') return token === '<>' ? null : token.replaceAll(/\\(.)/gs, '$1');
    const fields = new Map<string, Tree>();
    next();
    while (tokens[at] !== '}') {
      const name = next();
      if (!name.startsWith(':')) throw new SyntaxError(`a node has ${name} in place of a field`);
      fields.set(name.slice(1), value());
      while (tokens[at] !== '}' && tokens[at]?.startsWith(':') === false) value();
    }
    at += 1;
    return fields;
  };
  return value();
}
