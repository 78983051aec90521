/**
 * The code blocks of the documentation, with what comments above them ask of the check.
 *
 *     <!-- check: setup shop -->        the block runs after preambles/shop.ts, whose exports it may use
 *     <!-- check: continues -->         the block runs after the block before it, in one program
 *     <!-- check: after CODE -->        code that runs after the block: it asserts, and ends what the block began
 *     <!-- check: beside COMMAND -->    sh: another command that runs meanwhile
 *     <!-- check: until TEXT -->        sh: the command runs on; it gets SIGTERM once it has printed TEXT
 *     <!-- check: skip REASON -->       the block is not run
 *
 * A block without a language that follows a block is its output, and is compared: `…` stands for any text in a line, a
 * line of `…` alone for any lines.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '../..');

/** The languages that are checked. Other blocks are figures, and configuration of other tools. */
const LANGUAGES = ['ts', 'js', 'sql', 'sh'] as const;
export type Language = (typeof LANGUAGES)[number];

export interface Block {
  /** `docs/errors.md`. */
  readonly file: string;
  /** Of its first line of code, from 1. */
  readonly line: number;
  readonly language: Language;
  readonly code: string;
  readonly setup: string | undefined;
  /** The block that runs before, in the same program. */
  readonly continues: Block | undefined;
  readonly after: string;
  readonly until: string | undefined;
  readonly beside: string | undefined;
  readonly skip: string | undefined;
  readonly output: string | undefined;
}

/** README.md and docs/*.md: the documents whose code is run. */
export function documents(): string[] {
  const names = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  return ['README.md', ...names.toSorted().map((name) => `docs/${name}`)];
}

const FENCE = /^```(\w*)$/;
const DIRECTIVE = /^<!-- check: (\w+)\s*(.*?)\s*-->$/;

/** The blocks of one document, in order. Throws for a comment that the check does not understand. */
export function blocksOf(file: string, text = readFileSync(join(ROOT, file), 'utf8')): Block[] {
  const lines = text.split('\n');
  const blocks: Block[] = [];
  let asked: { name: string; value: string }[] = [];
  /** The block that a block without a language would be the output of. */
  let printing: Block | undefined;

  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    const where = `${file}:${i + 1}`;
    if (line.startsWith('<!-- check:')) {
      asked.push(directive(line, where));
      continue;
    }
    const fence = FENCE.exec(line);
    if (fence === null) {
      if (line.startsWith('```')) throw new Error(`${where}: a fence names a language, or none. Got ${line}.`);
      if (line.trim() === '') continue;
      if (asked.length > 0) throw new Error(`${where}: a check's comment stands right above a block.`);
      printing = undefined;
      continue;
    }
    const end = lines.indexOf('```', i + 1);
    if (end === -1) throw new Error(`${where}: the block has no end.`);
    const code = lines.slice(i + 1, end).join('\n');
    const language = LANGUAGES.find((known) => known === fence[1]);
    if (language !== undefined) {
      printing = blockOf(file, i + 2, language, code, asked, blocks.at(-1));
      blocks.push(printing);
    } else if (asked.length > 0) {
      throw new Error(`${where}: comments of the check are for ${LANGUAGES.join(', ')} blocks.`);
    } else {
      if (fence[1] === '' && printing !== undefined) {
        blocks[blocks.length - 1] = { ...printing, output: code };
      }
      printing = undefined;
    }
    asked = [];
    i = end;
  }
  return blocks;
}

/** Commands that change a block's own servers and nothing else. */
const COMMAND = /^(?:(?:npx )?gencache|psql|redis-cli)\b|^#|^$/;

/** Why this block can't be run, and is not marked as skipped; undefined if all is well. */
export function unrunnable({ language, code, skip }: Block): string | undefined {
  if (language !== 'sh' || skip !== undefined) return undefined;
  const strange = code.split('\n').find((line) => !COMMAND.test(line));
  return (
    strange &&
    `A sh block that is run has commands of gencache, psql and redis-cli alone, for it runs on this machine. Got "${strange}".`
  );
}

function directive(line: string, where: string): { name: string; value: string } {
  const [, name, value] = DIRECTIVE.exec(line) ?? [];
  const known = ['setup', 'continues', 'after', 'until', 'beside', 'skip'];
  if (name !== undefined && value !== undefined && known.includes(name)) return { name, value };
  throw new Error(`${where}: the check knows ${known.join(', ')}, one a line. Got ${line}.`);
}

function blockOf(
  file: string,
  line: number,
  language: Language,
  code: string,
  asked: readonly { name: string; value: string }[],
  before: Block | undefined,
): Block {
  const value = (name: string) => asked.find((each) => each.name === name)?.value;
  const skip = value('skip');
  if (skip === '') throw new Error(`${file}:${line}: a block that is skipped says why.`);
  const isContinued = value('continues') !== undefined;
  if (isContinued && before === undefined) throw new Error(`${file}:${line}: there is no block to continue.`);
  return {
    ...{ file, line, language, code, skip },
    setup: value('setup') ?? (isContinued ? before!.setup : undefined),
    continues: isContinued ? before : undefined,
    after: asked
      .filter(({ name }) => name === 'after')
      .map((each) => each.value)
      .join('\n'),
    until: value('until'),
    beside: value('beside'),
    output: undefined,
  };
}
