/**
 * Compiles one program that uses every subpath, with each TypeScript that is supported, in each way to resolve modules that
 * it has, from a CommonJS package and from one of ES modules, declarations of the libraries included.
 */
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';

const COMPILERS = ['ts54', 'ts57', 'ts59', 'ts60', 'ts7'];
const MODES = [
  { module: 'commonjs', moduleResolution: 'node10', from: ['commonjs'], until: 6 },
  { module: 'node16', moduleResolution: 'node16', from: ['commonjs', 'module'] },
  { module: 'nodenext', moduleResolution: 'nodenext', from: ['commonjs', 'module'] },
  { module: 'esnext', moduleResolution: 'bundler', from: ['commonjs', 'module'] },
];

const tasks = [];
for (const type of ['commonjs', 'module']) {
  mkdirSync(type, { recursive: true });
  writeFileSync(`${type}/package.json`, JSON.stringify({ private: true, type }));
  copyFileSync('use.ts', `${type}/use.ts`);
}
for (const compiler of COMPILERS) {
  const { version } = JSON.parse(readFileSync(`node_modules/${compiler}/package.json`, 'utf8'));
  const major = Number(version.split('.')[0]);
  for (const { module, moduleResolution, from, until = Infinity } of MODES) {
    if (major > until) continue;
    for (const type of from) tasks.push({ compiler, version, major, module, moduleResolution, type });
  }
}
const total = tasks.length;
await Promise.all([work(), work()]);
console.log(`types: ${total} ways to compile, ok`);

async function work() {
  for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) await compile(task);
}

async function compile({ compiler, version, major, module, moduleResolution, type }) {
  const project = `${type}/${compiler}-${moduleResolution}.json`;
  const compilerOptions = {
    ...{ module, moduleResolution, target: 'es2022', lib: ['es2022'], types: ['node'], noEmit: true },
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false },
    ...(major === 6 && moduleResolution === 'node10' && { ignoreDeprecations: '6.0' }),
  };
  writeFileSync(project, JSON.stringify({ compilerOptions, files: ['use.ts'] }));
  const what = `TypeScript ${version}, ${module}, ${moduleResolution}, ${type}`;
  try {
    await promisify(execFile)(process.execPath, [`node_modules/${compiler}/bin/tsc`, '-p', project]);
    console.log(`${what}: ok`);
  } catch (error) {
    throw new Error(`${what}:\n${error.stdout}${error.stderr}`);
  }
}
