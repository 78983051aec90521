/**
 * Bundles programs that import gencache, require it, and do both, with esbuild and with webpack, to CommonJS and to ES
 * modules; runs each bundle where the package is not installed, and prints its size.
 */
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import webpack from 'webpack';

const folder = mkdtempSync(join(tmpdir(), 'gencache-bundles-'));
try {
  for (const entry of ['imports.mjs', 'requires.cjs', 'both.mjs']) {
    for (const format of ['esm', 'cjs']) {
      const outfile = join(folder, `esbuild-${entry}.${format === 'esm' ? 'mjs' : 'cjs'}`);
      const { warnings } = await build({
        ...{ entryPoints: [entry], outfile, format },
        ...{ bundle: true, platform: 'node', target: 'node20', logLevel: 'error' },
      });
      check(outfile, warnings);
    }
    for (const module of [true, false]) {
      const filename = `webpack-${entry}.${module ? 'mjs' : 'cjs'}`;
      const stats = await promisify(webpack)({
        ...{ mode: 'production', target: 'node20', entry: `./${entry}`, experiments: { outputModule: module } },
        output: { path: folder, filename, module, chunkFormat: module ? 'module' : 'commonjs' },
      });
      const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true });
      check(join(folder, filename), [...errors, ...warnings]);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}

function check(bundle, complaints) {
  if (complaints.length > 0) throw new Error(`${bundle}: ${JSON.stringify(complaints, null, 2)}`);
  const printed = execFileSync(process.execPath, [bundle], { cwd: folder, encoding: 'utf8' });
  if (printed !== 'a bundle works\n') throw new Error(`${bundle} printed ${printed}`);
  console.log(`${bundle.slice(folder.length + 1)}: ok, ${Math.round(statSync(bundle).size / 1024)} KiB`);
}
