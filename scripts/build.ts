/**
 * Builds the package into `dist/`:
 *
 *     cjs/      the compiled library, as CommonJS, with its types
 *     esm/      one file for each subpath that `package.json` exports: it re-exports the same library by name
 *     module/   the compiled library, as ES modules, for bundlers alone: the condition `module`
 *
 * **Invariant.** A process has one copy of the library, whether its code requires it, imports it, or does both: a class,
 * a symbol or a registry exists once. In Node it holds because the files of `esm/` contain no code of their own; in a
 * bundle because bundlers take `module` for `import` and for `require`.
 *
 * Rejected: two compiled copies for Node, as most packages with both forms have. `instanceof` fails across the copies,
 * and a cache of one copy does not know what the other calls absent. Rejected: CommonJS for bundlers too. esbuild's ES
 * modules can't require Node's own modules, and no bundler leaves out what a program does not use.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, posix, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');

interface Conditions {
  readonly types: string;
  readonly default: string;
}
type Target = string | { readonly module: string; readonly import: Conditions; readonly require: Conditions };

const { exports: targets } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, Target>;
};

rmSync(join(ROOT, 'dist'), { recursive: true, force: true });
compile('tsconfig.build.cjs.json');
compile('tsconfig.build.module.json');
// The package's other JavaScript is ES modules. Bundlers look for `sideEffects` in the nearest package.json.
write('dist/cjs/package.json', `${JSON.stringify({ type: 'commonjs', sideEffects: false }, null, 2)}\n`);
for (const target of Object.values(targets)) if (typeof target !== 'string') reExport(target.import, target.require);

function compile(project: string): void {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', join(ROOT, project)], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

/** Writes the ES module of one subpath, and its types. Throws for a subpath without exported values. */
function reExport(esm: Conditions, cjs: Conditions): void {
  const library: object = createRequire(import.meta.url)(join(ROOT, cjs.default));
  const names = Object.keys(library)
    .filter((name) => name !== '__esModule')
    .sort();
  if (names.length === 0) throw new Error(`${cjs.default} must export at least one value, but exports none`);
  mkdirSync(join(ROOT, posix.dirname(esm.default)), { recursive: true });
  write(esm.default, `export {\n${names.map((name) => `  ${name},\n`).join('')}} from '${from(esm, cjs)}';\n`);
  write(esm.types, `export * from '${from(esm, cjs)}';\n`);
}

function from(esm: Conditions, cjs: Conditions): string {
  return posix.relative(posix.dirname(esm.default), cjs.default);
}

function write(path: string, text: string): void {
  writeFileSync(join(ROOT, path), text);
}
