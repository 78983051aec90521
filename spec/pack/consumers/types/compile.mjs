/**
 * Compiles one program that uses every subpath, with each TypeScript that is supported, in each way to resolve modules that
 * it has, from a CommonJS package and from one of ES modules; the libraries' declarations are checked too.
 *
 * Each compiler has a process of its own, two at once. Compilers written in JavaScript compile all in that process, which
 * halves the time: once it is warm, a program takes 2.5 s of CPU in place of 6.
 */
import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';

const COMPILERS = ['ts54', 'ts57', 'ts59', 'ts60', 'ts7'];
const MODES = [
  { module: 'commonjs', moduleResolution: 'node10', from: ['commonjs'], until: 6 },
  { module: 'commonjs', moduleResolution: 'bundler', from: ['commonjs'], since: 6 },
  { module: 'node16', moduleResolution: 'node16', from: ['commonjs', 'module'] },
  { module: 'nodenext', moduleResolution: 'nodenext', from: ['commonjs', 'module'] },
  { module: 'esnext', moduleResolution: 'bundler', from: ['commonjs', 'module'] },
];

const [only] = process.argv.slice(2);
if (only === undefined) await compileWithAll();
else compileWith(only);

async function compileWithAll() {
  for (const type of ['commonjs', 'module']) {
    mkdirSync(type, { recursive: true });
    writeFileSync(`${type}/package.json`, JSON.stringify({ private: true, type }));
    copyFileSync('use.ts', `${type}/use.ts`);
  }
  const waiting = [...COMPILERS];
  const work = async () => {
    for (let compiler = waiting.shift(); compiler !== undefined; compiler = waiting.shift()) {
      const { stdout } = await promisify(execFile)(process.execPath, [import.meta.filename, compiler]);
      process.stdout.write(stdout);
    }
  };
  await Promise.all([work(), work()]);
}

function compileWith(compiler) {
  const { version } = JSON.parse(readFileSync(`node_modules/${compiler}/package.json`, 'utf8'));
  const major = Number(version.split('.')[0]);
  for (const { module, moduleResolution, from, since = 0, until = Infinity } of MODES) {
    if (major < since || major > until) continue;
    for (const type of from) {
      const compilerOptions = {
        ...{ module, moduleResolution, target: 'es2022', lib: ['es2022'], types: ['node'], noEmit: true },
        ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false },
        ...(major === 6 && moduleResolution === 'node10' && { ignoreDeprecations: '6.0' }),
      };
      const project = `${type}/${compiler}-${module}-${moduleResolution}.json`;
      writeFileSync(project, JSON.stringify({ compilerOptions, files: ['use.ts'] }));
      const errors = major < 7 ? errorsOf(compiler, project) : errorsOfCommand(compiler, project);
      const what = `TypeScript ${version}, ${module}, ${moduleResolution}, ${type}`;
      if (errors !== '') throw new Error(`${what}:\n${errors}`);
      console.log(`${what}: ok`);
    }
  }
}

function errorsOf(compiler, project) {
  const ts = createRequire(import.meta.url)(compiler);
  const host = {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic({ messageText }) {
      throw new Error(ts.flattenDiagnosticMessageText(messageText, '\n'));
    },
  };
  const { fileNames, options, errors } = ts.getParsedCommandLineOfConfigFile(project, {}, host);
  const program = ts.createProgram({ rootNames: fileNames, options, configFileParsingDiagnostics: errors });
  return ts.formatDiagnostics(ts.getPreEmitDiagnostics(program), {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: () => process.cwd(),
    getNewLine: () => '\n',
  });
}

function errorsOfCommand(compiler, project) {
  try {
    execFileSync(process.execPath, [`node_modules/${compiler}/bin/tsc`, '-p', project], { encoding: 'utf8' });
    return '';
  } catch (error) {
    return `${error.stdout}${error.stderr}`;
  }
}
