/**
 * Makes programs of the blocks: the library is built as a user has it, each block becomes a file beside it, and one run of
 * the compiler checks and emits them all.
 *
 *     spec/docs/.tmp/
 *       node_modules/gencache/     package.json and dist/
 *       preambles/  blocks/        TypeScript: the preambles, and a file for each block
 *       out/                       what the compiler made of them; `node` runs that
 *
 * Packages that only the documentation uses (pino, kysely, ...) are found in spec/docs/node_modules, the peers in the
 * repository's.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Block, ROOT } from './blocks.js';

export const FOLDER = join(import.meta.dirname, '.tmp');
const PREAMBLES = join(import.meta.dirname, 'preambles');
/** The program of the package, as `bin` in package.json names it. */
const COMMAND = 'dist/cjs/lib/cli/main.js';
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');

/** What the compiler says of the blocks, by block. What it says of preambles is thrown. */
export type Complaints = ReadonlyMap<Block, readonly string[]>;

export function compileAll(blocks: readonly Block[]): Complaints {
  rmSync(FOLDER, { recursive: true, force: true });
  for (const folder of ['blocks', 'out', 'node_modules/.bin', 'node_modules/gencache']) {
    mkdirSync(join(FOLDER, folder), { recursive: true });
  }
  buildLibrary();
  cpSync(PREAMBLES, join(FOLDER, 'preambles'), { recursive: true });
  writeFileSync(join(FOLDER, 'package.json'), '{ "type": "module" }');
  for (const block of blocks) writeFileSync(sourceOf(block), programOf(block).text);
  const project = join(FOLDER, 'tsconfig.json');
  writeFileSync(
    project,
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: {
        ...{ noEmit: false, rootDir: FOLDER, outDir: join(FOLDER, 'out'), types: ['node'], sourceMap: false },
        // A block shows a name without using it, and leaves out what its preamble has.
        ...{ noUnusedLocals: false, noUnusedParameters: false, allowJs: true, checkJs: false },
        typeRoots: [join(ROOT, 'node_modules/@types')],
      },
      files: [...blocks.map(sourceOf), ...readdirSync(PREAMBLES).map((name) => join(FOLDER, 'preambles', name))],
      include: [],
      exclude: [],
    }),
  );
  const { stdout } = spawnSync(process.execPath, [TSC, '-p', project, '--pretty', 'false'], { encoding: 'utf8' });
  return complaints(blocks, stdout);
}

function buildLibrary(): void {
  const at = join(FOLDER, 'node_modules/gencache');
  const built = spawnSync('npm', ['run', 'build'], { cwd: ROOT, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`The library does not compile:\n${built.stdout}${built.stderr}`);
  cpSync(join(ROOT, 'dist'), join(at, 'dist'), { recursive: true });
  cpSync(join(ROOT, 'package.json'), join(at, 'package.json'));
  chmodSync(join(at, COMMAND), 0o755);
  symlinkSync(join('../gencache', COMMAND), join(FOLDER, 'node_modules/.bin/gencache'));
}

/** `docs-errors-42`. */
function nameOf({ file, line }: Block): string {
  return `${file.replace(/\.md$/, '').replaceAll('/', '-')}-${line}`;
}

/** A program of JavaScript keeps its language: its types are not checked. */
function sourceOf(block: Block): string {
  return join(FOLDER, 'blocks', `${nameOf(block)}.${block.language === 'js' ? 'js' : 'ts'}`);
}

/** What `node` runs. */
export function outputOf(block: Block): string {
  return join(FOLDER, 'out/blocks', `${nameOf(block)}.js`);
}

/** Lines of a program before the block's own first one. */
interface Program {
  readonly text: string;
  readonly linesBefore: number;
}

function programOf(block: Block): Program {
  const before = codeBefore(block);
  const work = workOf(block);
  const text = [before, work, block.after].filter((part) => part !== '').join('\n');
  const head = [
    ...importsOf(block, text),
    ...(/\brunSql\(/.test(text) ? [`import { runSql } from '../preambles/run-sql.js';`] : []),
    ...(/\bassert\b/.test(block.after) ? [`import assert from 'node:assert/strict';`] : []),
  ].join(' ');
  const tail = block.setup === undefined ? '' : 'await endOfSetup();';
  return {
    text: `${head}\n${text}\n${tail}\nexport {};\n`,
    linesBefore: 1 + (before === '' ? 0 : before.split('\n').length),
  };
}

function workOf({ language, code }: Block): string {
  return language === 'sql' ? `await runSql(${JSON.stringify(code)});` : language === 'sh' ? '' : code;
}

function codeBefore({ continues }: Block): string {
  if (continues === undefined) return '';
  return [codeBefore(continues), workOf(continues)].filter((part) => part !== '').join('\n');
}

/** Of a preamble's exports those that the program uses and does not declare or import itself. */
function importsOf({ setup }: Block, text: string): string[] {
  if (setup === undefined) return [];
  const names = exportsOf(setup).filter(({ name }) => {
    if (!new RegExp(`\\b${name}\\b`).test(text)) return false;
    const declares = new RegExp(`^(?:export )?(?:const|let|(?:async )?function|class|interface|type) ${name}\\b`, 'm');
    const destructures = new RegExp(`^(?:const|let) [{[][^=]*\\b${name}\\b[^=]*[}\\]] =`, 'm');
    const imports = new RegExp(`^import [^;]*?\\b${name}\\b[^;]*? from`, 'm');
    return ![declares, destructures, imports].some((pattern) => pattern.test(text));
  });
  const list = names.map(({ name, isType }) => (isType ? `type ${name}` : name));
  return [`import { ${[...list, 'end as endOfSetup'].join(', ')} } from '../preambles/${setup}.js';`];
}

function exportsOf(preamble: string): { name: string; isType: boolean }[] {
  const text = readFileSync(join(PREAMBLES, `${preamble}.ts`), 'utf8');
  const own = [...text.matchAll(/^export (const|let|function|async function|class|interface|type) (\w+)/gm)];
  const further = [...text.matchAll(/^export \* from '\.\/(.+)\.js'/gm)];
  const found = [
    ...own.map(([, kind, name]) => ({ name: name!, isType: kind === 'interface' || kind === 'type' })),
    ...further.flatMap(([, name]) => exportsOf(name!)),
  ].filter(({ name }) => name !== 'end');
  return found.filter(({ name }, i) => found.findIndex((each) => each.name === name) === i);
}

/** `.tmp/blocks/docs-errors-42.ts(7,3): error TS2304: ...`, told by the document's line. */
function complaints(blocks: readonly Block[], stdout: string): Complaints {
  const byFile = new Map(blocks.map((block) => [basename(sourceOf(block)), block]));
  const told = new Map<Block, string[]>();
  const others: string[] = [];
  let current: string[] = others;
  for (const text of stdout.split('\n')) {
    if (text === '') continue;
    const [, path, line, message] = /^(.+?)\((\d+),\d+\): (.*)$/.exec(text) ?? [];
    const block = path === undefined ? undefined : byFile.get(basename(path));
    if (block !== undefined) {
      const at = block.line + Number(line) - 1 - programOf(block).linesBefore;
      told.set(block, (current = told.get(block) ?? []));
      current.push(`${block.file}:${at}: ${message}`);
    } else {
      // The first line of a complaint, or one that goes on.
      if (path !== undefined || !text.startsWith(' ')) current = others;
      current.push(text);
    }
  }
  if (others.length > 0) throw new Error(`The preambles do not compile:\n${others.join('\n')}`);
  return told;
}
