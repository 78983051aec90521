/**
 * Builds the package into `dist/`:
 *
 *     cjs/    the compiled library, as CommonJS, with its types
 *     esm/    one file for each subpath that `package.json` exports: it re-exports the same library by name
 *
 * **Invariant.** A process has one copy of the library, whether its code requires it, imports it, or does both: a class,
 * a symbol or a registry exists once. It holds because the ES modules contain no code of their own.
 *
 * Rejected: two compiled copies, as most packages with both forms have. `instanceof` fails across the copies, and an
 * entry that one copy declares is foreign to a cache of the other.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const DIST = join(ROOT, 'dist');
const CJS = join(DIST, 'cjs');

interface Conditions {
  readonly types: string;
  readonly default: string;
}
type Target = string | { readonly import: Conditions; readonly require: Conditions };

const { exports: targets } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, Target>;
};

rmSync(DIST, { recursive: true, force: true });
compile();
for (const target of Object.values(targets)) if (typeof target !== 'string') reExport(target.import, target.require);

function compile(): void {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', join(ROOT, 'tsconfig.build.cjs.json')], {
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
  // The package's other JavaScript is ES modules. Bundlers look for `sideEffects` in the nearest package.json.
  writeFileSync(join(CJS, 'package.json'), `${JSON.stringify({ type: 'commonjs', sideEffects: false }, null, 2)}\n`);
}

/** Writes the ES module of one subpath, and its types. Throws for a subpath without exported values. */
function reExport(esm: Conditions, cjs: Conditions): void {
  const library: object = createRequire(import.meta.url)(join(ROOT, cjs.default));
  const names = Object.keys(library)
    .filter((name) => name !== '__esModule')
    .sort();
  if (names.length === 0) throw new Error(`${cjs.default} must export at least one value, but exports none`);
  mkdirSync(dirname(join(ROOT, esm.default)), { recursive: true });
  write(esm.default, `export {\n${names.map((name) => `  ${name},\n`).join('')}} from '${from(esm, cjs)}';\n`);
  write(esm.types, `export * from '${from(esm, cjs)}';\n`);
}

function from(esm: Conditions, cjs: Conditions): string {
  return relative(dirname(esm.default), cjs.default);
}

function write(path: string, text: string): void {
  writeFileSync(join(ROOT, path), text);
}
