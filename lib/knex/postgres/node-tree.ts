/**
 * PostgreSQL's text of an analysed query (`pg_node_tree`): `{QUERY :commandType 1 :rtable ({RANGETBLENTRY ...}) ...}`.
 * Its grammar has not changed for decades; the fields of its nodes change with each release, and are read by name.
 */
export type Tree = string | null | TreeNode | readonly Tree[];

export interface TreeNode {
  readonly type: string;
  readonly fields: Readonly<Record<string, Tree>>;
}

const TOKEN = /\s*(?:(?<bracket>[(){}])|"(?<string>(?:[^"\\]|\\[\s\S])*)"|(?<atom>(?:\\[\s\S]|[^\s(){}\\])+))/gy;

/** Reads the text of a tree. Throws for a text of another grammar. */
export function parseTree(text: string): Tree {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const end = text.trimEnd().length;
  while (TOKEN.lastIndex < end) {
    const match = TOKEN.exec(text);
    if (match === null) throw new Error(`PostgreSQL's text of a query has an unknown form: ${text.slice(0, 80)}`);
    const { bracket, string, atom } = match.groups!;
    tokens.push(bracket ?? (string === undefined ? atom! : `"${string}`));
  }
  let at = 0;
  const read = (): Tree => {
    const token = tokens[at++];
    if (token === undefined) throw new Error('PostgreSQL has cut the text of a query short.');
    if (token === '(') {
      const list: Tree[] = [];
      while (tokens[at] !== ')') list.push(read());
      at++;
      return list;
    }
    if (token !== '{') return atomOf(token);
    const type = tokens[at++]!;
    const fields: Record<string, Tree> = {};
    while (tokens[at] !== '}') {
      const name = tokens[at++];
      if (name?.startsWith(':') !== true) throw new Error(`A node of PostgreSQL's query has an unknown form: ${type}`);
      // A value of several tokens, such as the bytes of a constant, is of no use here, but for its first.
      fields[name.slice(1)] = read();
      while (at < tokens.length && tokens[at] !== '}' && !tokens[at]!.startsWith(':')) read();
    }
    at++;
    return { type, fields };
  };
  return read();
}

function atomOf(token: string): string | null {
  if (token === '<>') return null;
  return (token.startsWith('"') ? token.slice(1) : token).replaceAll(/\\([\s\S])/g, '$1');
}

export function isNode(tree: Tree | undefined): tree is TreeNode {
  return typeof tree === 'object' && tree !== null && !Array.isArray(tree);
}

export function isList(tree: Tree | undefined): tree is readonly Tree[] {
  return Array.isArray(tree);
}

/** The nodes of a list; empty for another value. */
export function nodes(tree: Tree | undefined): readonly TreeNode[] {
  return isList(tree) ? tree.filter(isNode) : [];
}

/** A field that is a node. */
export function child(node: TreeNode, field: string): TreeNode | undefined {
  const value = node.fields[field];
  return isNode(value) ? value : undefined;
}

/** A field that is a word; empty for another value. */
export function word(node: TreeNode, field: string): string {
  const value = node.fields[field];
  return typeof value === 'string' ? value : '';
}

export function number(node: TreeNode, field: string): number {
  return Number(node.fields[field] ?? 0);
}

/** All nodes below a tree and itself, in preorder; `enter` returns whether to descend. */
export function walk(tree: Tree | undefined, enter: (node: TreeNode) => boolean): void {
  if (isList(tree)) for (const each of tree) walk(each, enter);
  else if (isNode(tree) && enter(tree)) for (const value of Object.values(tree.fields)) walk(value, enter);
}
