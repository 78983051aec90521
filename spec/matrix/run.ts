/**
 * `npm run test:matrix [-- <text>...]`: the specs, and those of faults, on further servers.
 *
 * Each PostgreSQL with this machine's Redis, then each other Redis or Valkey of PATH with this machine's PostgreSQL; with
 * texts, those combinations alone whose servers contain one of them: `npm run test:matrix -- 'PostgreSQL 18' Valkey`.
 * A line tells the result of each, a failed run's end follows it, and the whole output is in `.tmp/matrix/`. Then the rows
 * of the README's table, of the servers on which everything passed.
 *
 * Exit code: 0; 1 if a spec failed or a run did not end in the orderly way; 128 and the signal that ended it.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join, relative } from 'node:path';
import { POSTGRES_BIN, REDIS_SERVER } from '../support/servers/binaries.js';
import { postgresFolders, postgresVersion, redisPrograms, redisVersion } from './servers.js';

const ROOT = join(import.meta.dirname, '../..');
const LOGS = join(ROOT, '.tmp/matrix');
const SCRIPTS = ['test', 'test:faults'];
const FAILURE_LINES = 120;

interface Combination {
  readonly postgres: string;
  readonly redis: string;
  /** POSTGRES_BIN and REDIS_SERVER. */
  readonly env: Readonly<Record<string, string>>;
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

let running: ChildProcess | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    // The group: npm, mocha and its workers. Their servers end when they do (servers/reaper.ts).
    if (running?.pid !== undefined) process.kill(-running.pid, signal);
    process.exit(128 + constants.signals[signal]);
  });
}

async function combinations(): Promise<Combination[]> {
  const { machine, installed } = postgresFolders();
  const [redis, ...others] = redisPrograms();
  const pairs = [
    ...[...installed, machine].map((folder) => [folder, redis]),
    ...others.map((other) => [machine, other]),
  ];
  const found: Combination[] = [];
  for (const [folder, program] of pairs) {
    const env = { [POSTGRES_BIN]: folder!, [REDIS_SERVER]: program! };
    Object.assign(process.env, env);
    const combination = { postgres: `PostgreSQL ${await postgresVersion()}`, redis: await redisVersion(), env };
    const same = (other: Combination) => nameOf(other) === nameOf(combination);
    if (!found.some(same)) found.push(combination);
  }
  return found;
}

function nameOf({ postgres, redis }: Combination): string {
  return `${postgres}, ${redis}`;
}

/** Runs both scripts, whatever the first one tells, and prints the result. */
async function run(combination: Combination): Promise<Counts> {
  const startedAtMs = performance.now();
  const runs: (Counts & { readonly log: string })[] = [];
  for (const script of SCRIPTS) runs.push(await runScript(script, combination));
  const sum = (count: keyof Counts) => runs.reduce((total, counts) => total + counts[count], 0);
  const counts = { passed: sum('passed'), failed: sum('failed'), skipped: sum('skipped') };
  const seconds = Math.round((performance.now() - startedAtMs) / 1_000);
  console.log(
    `${nameOf(combination)}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped, ${seconds} s`,
  );
  for (const { failed, log } of runs) if (failed > 0) console.log(`\n${failureIn(log)}\n`);
  return counts;
}

async function runScript(script: string, combination: Combination): Promise<Counts & { readonly log: string }> {
  const log = join(LOGS, `${nameOf(combination)} ${script}`.toLowerCase().replace(/[^a-z0-9.]+/g, '-') + '.log');
  const output = createWriteStream(log);
  await once(output, 'open');
  // Servers of the environment's addresses would be the same for each combination; colours would hide the counts.
  const { REDIS_URL: _redis, DATABASE_URL: _database, FORCE_COLOR: _colour, ...env } = process.env;
  const child = spawn('npm', ['run', '--silent', script], {
    cwd: ROOT,
    env: { ...env, ...combination.env },
    stdio: ['ignore', output, output],
    detached: true,
  });
  running = child;
  const [code] = (await once(child, 'exit')) as [number | null];
  running = undefined;
  output.close();
  const counts = countsIn(readFileSync(log, 'utf8'));
  // A run that ended before its summary, or by something else than a spec, is one failure.
  const failed = counts.failed === 0 && (code !== 0 || counts.passed === 0) ? 1 : counts.failed;
  return { ...counts, failed, log };
}

function countsIn(output: string): Counts {
  const last = (word: string) => Number([...output.matchAll(new RegExp(`^ +(\\d+) ${word}`, 'gm'))].at(-1)?.[1] ?? 0);
  return { passed: last('passing'), failed: last('failing'), skipped: last('pending') };
}

/** What failed, and where all of the output is. */
function failureIn(log: string): string {
  const lines = readFileSync(log, 'utf8').split('\n');
  const failing = lines.findLastIndex((line) => /^ +\d+ failing/.test(line));
  const shown = failing === -1 ? lines.slice(-FAILURE_LINES) : lines.slice(failing, failing + FAILURE_LINES);
  return `${relative(ROOT, log)} has all of it:\n${shown.join('\n')}`;
}

/** The rows of the README: each server on which everything passed, oldest first. */
function table(passed: readonly Combination[]): string {
  const versions = (kind: 'postgres' | 'redis') =>
    [...new Set(passed.map((combination) => combination[kind]))]
      .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
      .map((name) => name.replace('PostgreSQL ', ''));
  return [
    '|            | the specs passed on |',
    '| ---------- | ------------------- |',
    `| Redis      | ${versions('redis').join(', ')} |`,
    `| PostgreSQL | ${versions('postgres').join(', ')} |`,
  ].join('\n');
}

mkdirSync(LOGS, { recursive: true });
const texts = process.argv.slice(2);
const all = await combinations();
const wanted = all.filter((one) => texts.length === 0 || texts.some((text) => nameOf(one).includes(text)));
if (wanted.length === 0) {
  console.error(`A text must be part of ${all.map(nameOf).join('; ')}, but got ${texts.join(', ')}`);
  process.exit(64);
}
const passed: Combination[] = [];
for (const combination of wanted) if ((await run(combination)).failed === 0) passed.push(combination);
if (passed.length > 0) console.log(`\n${table(passed)}`);
process.exitCode = passed.length === wanted.length ? 0 : 1;
