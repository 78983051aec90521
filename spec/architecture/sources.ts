import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository. Paths below are relative to it, with slashes. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

export interface Import {
  /** The file that imports: `lib/read/reader.ts`. */
  readonly file: string;
  /** A file likewise, or a package: `knex`. */
  readonly target: string;
  /** Whether types alone are imported, of which nothing is left when the program runs. */
  readonly typeOnly: boolean;
}

/** The files below a folder, by the end of their names. */
export function filesBelow(folder: string, ending: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .map((name) => posix.join(folder, name.replaceAll('\\', '/')))
    .toSorted();
}

export function textOf(file: string): string {
  return readFileSync(join(ROOT, file), 'utf8');
}

/** `import ... from '...'` and `export ... from '...'` at the beginning of a line, in the forms that prettier leaves. */
const STATEMENT =
  /^(?:import|export)\s+(?<typeOnly>type\s+)?(?<names>\*(?:\s+as\s+\w+)?|\{[^}]*\}|\w+(?:\s*,\s*\{[^}]*\})?)\s+from\s+'(?<from>[^']+)'/gm;
/** `import '...'`, and `import('...')`, of a value or a type. */
const BARE = /^import\s+'(?<from>[^']+)'|\bimport\(\s*'(?<called>[^']+)'\s*\)/gm;

/** What the source of a file imports. A `.js` is the `.ts` that it is compiled from. */
export function importsIn(file: string, text: string): Import[] {
  const imports: Import[] = [];
  const add = (from: string, typeOnly: boolean) => {
    const target = from.startsWith('.') ? posix.join(posix.dirname(file), from).replace(/\.js$/, '.ts') : from;
    imports.push({ file, target, typeOnly });
  };
  for (const { groups } of text.matchAll(STATEMENT)) {
    const names = groups!.names!.startsWith('{') ? groups!.names!.slice(1, -1).split(',') : [groups!.names!];
    const typeOnly = names.map((name) => name.trim()).every((name) => name === '' || name.startsWith('type '));
    add(groups!.from!, groups!.typeOnly !== undefined || typeOnly);
  }
  for (const { groups } of text.matchAll(BARE)) add((groups!.from ?? groups!.called)!, false);
  return imports;
}

/** Every import of every source file below a folder. */
export function importsBelow(folder: string): Import[] {
  return filesBelow(folder, '.ts').flatMap((file) => importsIn(file, textOf(file)));
}

/** The room that a file is in: its folder below `lib`, `lib` itself for those at the top; elsewhere its whole folder. */
export function roomOf(file: string): string {
  const folder = posix.dirname(file);
  return folder.startsWith('lib/') ? folder.slice('lib/'.length) : folder;
}
