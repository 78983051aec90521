/** A statement's text, divided at its parameters, without the semicolon behind it. */
export interface StatementText {
  /** The numbers of its parameters, in order of occurrence: `[1, 2, 1]`. */
  readonly parameters: readonly number[];
  /** Whether a second statement follows. */
  readonly several: boolean;
  /** Its first word, in lower case. */
  readonly verb: string;
  /** The text with another text in each parameter's place. */
  with(parameter: (number: number) => string): string;
}

/** Literals, quoted identifiers and comments, in which `$1` and `;` mean nothing; then parameters, ends, words. */
const TOKENS =
  /(?<skip>\b[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\$(?<tag>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$[\s\S]*?\$\k<tag>\$)|(?<comment>\/\*)|\$(?<parameter>\d+)|(?<end>;)|(?<word>[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)|\s+|[\s\S]/g;

/** Divides the text of a statement, as PostgreSQL's lexer would. */
export function statementText(sql: string): StatementText {
  const parts: (string | number)[] = [];
  let verb = '';
  let ended = false;
  let several = false;
  let at = 0;
  while (at < sql.length) {
    TOKENS.lastIndex = at;
    const match = TOKENS.exec(sql)!;
    const { skip, comment, parameter, end, word } = match.groups!;
    const text = comment === undefined ? match[0] : blockComment(sql, at);
    at += text.length;
    if (end !== undefined) {
      ended = true;
      continue;
    }
    const blank = comment !== undefined || /^(?:\s|--)/.test(text);
    if (ended) {
      if (!blank) several = true;
      continue;
    }
    if (verb === '' && !blank) verb = (word ?? (skip === undefined ? text : '')).toLowerCase();
    if (verb === '(') verb = '';
    parts.push(parameter === undefined ? text : Number(parameter));
  }
  return {
    parameters: parts.filter((part) => typeof part === 'number'),
    several,
    verb,
    with: (named) => parts.map((part) => (typeof part === 'number' ? named(part) : part)).join(''),
  };
}

/** PostgreSQL's comments nest. */
function blockComment(sql: string, start: number): string {
  let depth = 0;
  let at = start;
  do {
    if (sql.startsWith('/*', at)) {
      depth++;
      at += 2;
    } else if (sql.startsWith('*/', at)) {
      depth--;
      at += 2;
    } else at++;
  } while (depth > 0 && at < sql.length);
  return sql.slice(start, at);
}
