/**
 * Packs the library, looks at what is in the tarball and whether it may be published, installs it into an empty folder as a user would, and uses it
 * there: each subpath with its own peer alone, from plain JavaScript and from strict TypeScript, on private Redis and
 * PostgreSQL servers. Then types in the README's first program, runs it twice with Redis and once without, and compares
 * its output with the README's. Then the projects of `consumers/`, or those alone that are named:
 * `npm run test:pack -- types bundlers`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startPostgres } from '../support/servers/postgres-server.js';
import { startRedis } from '../support/servers/redis-server.js';
import { CONSUMERS, runConsumers } from './consumers.js';

const ROOT = join(import.meta.dirname, '../..');
const WANTED = new RegExp(
  `^(${[
    'package\\.json|README\\.md|CHANGELOG\\.md|CAVEATS\\.md|LICENSE|compose\\.yml|bench/README\\.md',
    'docs/[A-Za-z-]+\\.md',
    'dist/cjs/package\\.json|dist/(cjs/(lib|migrations)|esm)/.*\\.(js|d\\.ts)',
    'dist/module/(lib|migrations)/.*\\.js',
  ].join('|')})$`,
);
/** No server listens there. */
const DEAD_REDIS_URL = 'redis://127.0.0.1:1';

/** A js block, the command that runs it and its output, then the same without Redis. */
const FIRST_PROGRAM = new RegExp(
  '```js\n(.*?)```' +
    '.*?```sh\nnode start\\.mjs\n```\n\n```\n(.*?)```' +
    `.*?\`\`\`sh\nREDIS_URL=${DEAD_REDIS_URL} node start\\.mjs\n\`\`\`\n\n\`\`\`\n(.*?)\`\`\``,
  's',
);
/** A file, or what to take under each condition. */
type Target = string | { readonly [condition: string]: Target };

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  main: string;
  types: string;
  exports: Record<string, Target>;
  typesVersions: Record<string, Record<string, string[]>>;
  bin: Record<string, string>;
  repository: { url: string };
  devDependencies: Record<string, string>;
};
const named = process.argv.slice(2);
const unknown = named.filter((name) => !CONSUMERS.includes(name));
if (unknown.length > 0) throw new Error(`A consumer is one of ${CONSUMERS.join(', ')}, but got ${unknown.join(', ')}`);

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'gencache-pack-'));
const redis = await startRedis();
const postgres = await startPostgres();

function run(command: string, args: string[], cwd: string, redisUrl = redis.url): string {
  console.log(`$ ${command} ${args.join(' ')}`);
  const env = { ...process.env, REDIS_URL: redisUrl, DATABASE_URL: postgres.url };
  return execFileSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 300_000,
  });
}

/** The subpaths that applications import. */
const SUBPATHS = Object.keys(manifest.exports)
  .filter((subpath) => subpath !== './package.json')
  .map((subpath) => subpath.slice(1));

/** The files that a part of package.json names, at whatever depth. */
function filesOf(part: unknown): string[] {
  return typeof part === 'string' ? [part] : Object.values(part as object).flatMap(filesOf);
}

/** Whether the subpath can be imported and required with the packages that the folder has by now. */
function loads(subpath: string, cwd: string): boolean {
  const args = ['--input-type=commonjs', '-e', `require('gencache${subpath}'); import('gencache${subpath}')`];
  return spawnSync('node', args, { cwd, stdio: 'ignore' }).status === 0;
}

function expectEqual(what: string, actual: readonly string[], wanted: readonly string[]): void {
  const [found, promised] = [actual, wanted].map((names) => [...names].sort().join(', '));
  if (found !== promised) throw new Error(`${what}: found ${found}; expected ${promised}`);
  console.log(`${what}: ok`);
}

/** Packs the library and returns the tarball's path. Throws if it lacks a file, or has one that users do not need. */
function pack(): string {
  const packed = run('npm', ['pack', '--json', '--pack-destination', folder], ROOT);
  const [tarball] = JSON.parse(packed.slice(packed.indexOf('[\n'))) as [
    { filename: string; size: number; files: { path: string }[] },
  ];
  const paths = tarball.files.map((file) => file.path);
  const unwanted = paths.filter((path) => !WANTED.test(path));
  if (unwanted.length > 0) throw new Error(`Users need none of these in the tarball: ${unwanted.join(', ')}`);
  const { main, types, exports, typesVersions, bin } = manifest;
  for (const path of filesOf([main, types, exports, typesVersions, bin])) {
    if (!paths.includes(path.replace('./', ''))) {
      throw new Error(`package.json names ${path}, which is not in the tarball`);
    }
  }
  console.log(`${tarball.filename}: ${paths.length} files, ${tarball.size} bytes`);
  return join(folder, tarball.filename);
}

/** `npm publish` refuses a tree without the address of its repository, and for nothing else: no link leads out of the tarball. */
function checkRelease(): void {
  const { status, stderr } = spawnSync('npm', ['run', '--silent', 'prepublishOnly'], { cwd: ROOT, encoding: 'utf8' });
  const isPlaceholder = manifest.repository.url.includes('.invalid/');
  const wanted = isPlaceholder ? /^`repository` of package\.json must be .*\n$/ : /^$/;
  if ((status === 0) === isPlaceholder || !wanted.test(stderr)) {
    throw new Error(`The check before a release ended with ${status}: ${stderr}`);
  }
  console.log(`the check before a release: ${isPlaceholder ? 'refused without an address' : 'ok'}`);
}

/** Uses the tarball in one folder, which gets the peers one after another. */
function checkAsUser(tarball: string): void {
  const { devDependencies: versions } = manifest;
  const user = join(folder, 'user');
  cpSync(join(import.meta.dirname, 'user'), user, { recursive: true });
  writeFileSync(join(user, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
  const peers = ['ioredis', 'knex', 'pg'].map((name) => `${name}@${versions[name]}`);
  const tools = ['typescript', '@types/node'].map((name) => `${name}@${versions[name]}`);
  const install = (...packages: string[]) => run('npm', ['install', '--no-audit', '--no-fund', ...packages], user);
  install(tarball, ...tools);
  const loaded = () => SUBPATHS.filter((subpath) => loads(subpath, user));
  expectEqual('loads without any peer', loaded(), ['', '/knex', '/testing', '/workflow-engine']);
  run('npx', ['tsc', '-p', 'core'], user);
  install(peers[0]!);
  expectEqual('loads with ioredis alone', loaded(), SUBPATHS);
  install(...peers);
  console.log(run('node', ['plain.js'], user));
  run('npx', ['tsc', '-p', '.'], user);
  console.log(run('node', ['out/strict.js'], user));

  const command = (...args: string[]) => run('npx', ['--no', '--', 'gencache', ...args], user);
  for (const args of [
    ['--help'],
    ['outbox', 'install'],
    ['doctor', '--cache', 'user'],
    ['outbox', 'uninstall', '--yes'],
  ]) {
    console.log(command(...args));
  }

  const [, program, promised, promisedWithoutRedis] = FIRST_PROGRAM.exec(readme) ?? [];
  if (program === undefined) {
    throw new Error('The README has no first program: a js block, then twice a command and its output');
  }
  writeFileSync(join(user, 'start.mjs'), program);
  // The second time within the TTL of the entries that the first has stored, and on another table.
  for (const [when, url, wanted] of [
    ['at first', redis.url, promised],
    ['again', redis.url, promised],
    ['without Redis', DEAD_REDIS_URL, promisedWithoutRedis],
  ] as const) {
    const printed = run('node', ['start.mjs'], user, url);
    if (printed !== wanted)
      throw new Error(`${when}, the README promises\n${wanted}and its program prints\n${printed}`);
    console.log(`the README's first program, ${when}: ok`);
  }
}

try {
  const tarball = pack();
  if (named.length === 0) {
    checkRelease();
    checkAsUser(tarball);
  }
  await runConsumers({
    names: named.length > 0 ? named : CONSUMERS,
    tarball,
    into: join(folder, 'consumers'),
    redisUrl: redis.url,
    databaseUrl: postgres.url,
  });
} finally {
  await Promise.all([redis.stop(), postgres.stop()]);
  rmSync(folder, { recursive: true, force: true });
}
