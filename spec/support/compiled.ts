/**
 * The library, and the programs of specs, as JavaScript: what child processes run.
 *
 * A child that compiles TypeScript as it starts takes twice as long to be there, and specs start hundreds. So the
 * first one to be started compiles everything, for all that this process starts, into a folder of the system's
 * temporary ones; it goes when the process exits. The main process of a parallel run does so for its workers. Never
 * `dist/`, which may be absent, or of other sources.
 *
 * Nothing is type-checked here (`npm run typecheck` does): like in specs, a wrong type fails nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../..');
const SOURCES = ['lib', 'migrations', 'spec/**/programs/*.ts'];

/** In the environment of workers, and of what they start: the folder. */
const SHARED = 'GENCACHE_SPEC_COMPILED';

let folder = process.env[SHARED];

/** Compiles, for this process and those that it starts from now on. */
export function shareCompiled(): void {
  process.env[SHARED] = folder ??= compile();
}

/**
 * The path of a TypeScript file of the library, or of a program of specs, as JavaScript; for plain `node`. The file is
 * named by its path in the repository: `compiled('lib/cli/main.ts')`. Compiles at the first call, within a second or two.
 */
export function compiled(file: string): string {
  folder ??= compile();
  return join(folder, file.replace(/\.ts$/, '.js'));
}

function compile(): string {
  const into = mkdtempSync(join(realpathSync(tmpdir()), 'gencache-compiled-'));
  process.once('exit', () => rmSync(into, { recursive: true, force: true }));
  symlinkSync(join(ROOT, 'node_modules'), join(into, 'node_modules'));
  writeFileSync(join(into, 'package.json'), '{ "type": "module" }');
  const project = join(into, 'tsconfig.json');
  writeFileSync(
    project,
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.build.json'),
      compilerOptions: { rootDir: ROOT, outDir: into, declaration: false, noCheck: true, types: [] },
      include: SOURCES.map((path) => join(ROOT, path)),
    }),
  );
  const { status, stdout } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', project],
    {
      encoding: 'utf8',
    },
  );
  if (status !== 0) throw new Error(`What specs start is compiled first. It does not compile:\n${stdout}`);
  return into;
}
