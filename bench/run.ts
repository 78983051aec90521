/**
 * `npm run bench -- [--quick] [--json FILE] [name...]`: compiles the library and its measures, and runs them.
 *
 * Compiled, since users run compiled code: tsx gives each inner function its name at run time, which made a hit look
 * a tenth slower than it is.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const compiler = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');
const output = join(here, '.tmp');

rmSync(output, { recursive: true, force: true });
const compiled = spawnSync(process.execPath, [compiler, '-p', join(here, 'tsconfig.build.json')], { stdio: 'inherit' });
if (compiled.status !== 0) process.exit(compiled.status ?? 1);

const run = spawn(process.execPath, [join(output, 'bench', 'main.js'), ...process.argv.slice(2)], { stdio: 'inherit' });
// A Ctrl-C reaches the run as well, which ends its servers and then itself.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => run.kill());
const [code] = (await once(run, 'exit')) as [number | null];
process.exitCode = code ?? 1;
