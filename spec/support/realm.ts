/**
 * Modules of the library in a realm of their own, as Jest runs each test file: its own Object, Map and Date; Node's
 * modules, Buffer and process are those of the main realm.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { compileFunction, type Context, createContext } from 'node:vm';

const ROOT = resolve(import.meta.dirname, '../..');
const requireHere = createRequire(import.meta.url);

export interface Realm {
  /** The realm's globals. */
  readonly globals: Context;
  /** Loads a module that was compiled for the realm, by its path in the repository: `lib/codec/codec.ts`. */
  load(file: string): unknown;
}

/** Compiles the files and all they import, within a second or two, and makes a realm to load them in. */
export function realmOf(globals: Readonly<Record<string, unknown>>, ...files: readonly string[]): Realm {
  const folder = compileAsCommonJs(files);
  const context = createContext({ Buffer, process, ...globals });
  const loaded = new Map<string, { exports: unknown }>();
  const load = (path: string): unknown => {
    const before = loaded.get(path);
    if (before !== undefined) return before.exports;
    const module = { exports: {} };
    loaded.set(path, module);
    const require = (name: string): unknown =>
      name.startsWith('.') ? load(join(dirname(path), name)) : requireHere(name);
    const parameters = ['exports', 'require', 'module'];
    const run = compileFunction(readFileSync(path, 'utf8'), parameters, { parsingContext: context, filename: path });
    run(module.exports, require, module);
    return module.exports;
  };
  return { globals: context, load: (file) => load(join(folder, file.replace(/\.ts$/, '.js'))) };
}

function compileAsCommonJs(files: readonly string[]): string {
  const into = mkdtempSync(join(realpathSync(tmpdir()), 'gencache-realm-'));
  process.once('exit', () => rmSync(into, { recursive: true, force: true }));
  const project = join(into, 'tsconfig.json');
  const options = { rootDir: ROOT, outDir: into, declaration: false, noCheck: true, types: [] };
  const extended = { extends: join(ROOT, 'tsconfig.build.cjs.json'), compilerOptions: options, include: [] };
  writeFileSync(project, JSON.stringify({ ...extended, files: files.map((file) => join(ROOT, file)) }));
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', project], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`Modules of a realm are compiled first. They do not compile:\n${stdout}`);
  return into;
}
