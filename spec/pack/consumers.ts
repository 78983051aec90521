/**
 * Projects as users have them, each a folder of `consumers/` whose `npm test` uses the package in its own way. Each is
 * copied to an empty folder, gets the packed library and its own dependencies installed, and runs there.
 */
import { execFile } from 'node:child_process';
import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';

const FOLDER = join(import.meta.dirname, 'consumers');
const CONSUMERS_AT_ONCE = 2;
const LIMIT_MS = 600_000;

/** The slowest ones first, so that none of them is alone at the end. */
const SLOWEST = ['types', 'test-runners'];
export const CONSUMERS: readonly string[] = [
  ...SLOWEST,
  ...readdirSync(FOLDER).filter((name) => !SLOWEST.includes(name)),
];

export interface ConsumerOptions {
  readonly names: readonly string[];
  /** The packed library. */
  readonly tarball: string;
  /** An empty folder to copy them into. */
  readonly into: string;
  readonly redisUrl: string;
  /** Of a server on which each consumer gets a database of its own. */
  readonly databaseUrl: string;
}

/** Runs the consumers, and prints what each printed when it has ended. Throws if one fails, after all have ended. */
export async function runConsumers({ names, ...options }: ConsumerOptions): Promise<void> {
  const waiting = [...names];
  const failed: string[] = [];
  const work = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const { output, ok } = await runConsumer(name, options);
      console.log(output);
      if (!ok) failed.push(name);
    }
  };
  await Promise.all(Array.from({ length: CONSUMERS_AT_ONCE }, work));
  if (failed.length > 0) throw new Error(`Consumers of the package must pass, but these failed: ${failed.join(', ')}`);
}

async function runConsumer(
  name: string,
  { tarball, into, redisUrl, databaseUrl }: Omit<ConsumerOptions, 'names'>,
): Promise<{ readonly output: string; readonly ok: boolean }> {
  const folder = join(into, name);
  cpSync(join(FOLDER, name), folder, { recursive: true });
  const env = {
    ...process.env,
    TARBALL: tarball,
    REDIS_URL: redisUrl,
    DATABASE_URL: await createDatabase(databaseUrl, `consumer-${name}`),
    FORCE_COLOR: '0',
  };
  const npm = (...args: string[]) =>
    promisify(execFile)('npm', args, {
      cwd: folder,
      env,
      encoding: 'utf8',
      timeout: LIMIT_MS,
      maxBuffer: 1 << 26,
    });
  const startedAtMs = performance.now();
  const seconds = () => `${((performance.now() - startedAtMs) / 1_000).toFixed(1)} s`;
  let installed = '';
  try {
    await npm('install', '--no-audit', '--no-fund', '--no-package-lock', '--ignore-scripts', tarball);
    installed = `installed after ${seconds()}, `;
    const { stdout } = await npm('test');
    return { output: `--- ${name}: ok, ${installed}done after ${seconds()}\n${stdout}`, ok: true };
  } catch (error) {
    const { message, stdout = '', stderr = '' } = error as Error & { stdout?: string; stderr?: string };
    const output = `--- ${name}: FAILED, ${installed}after ${seconds()}: ${message}\n${stdout}${stderr}`;
    return { output, ok: false };
  }
}

async function createDatabase(serverUrl: string, name: string): Promise<string> {
  const client = new Client({ connectionString: serverUrl });
  await client.connect();
  try {
    await client.query(`create database ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
  const url = new URL(serverUrl);
  url.pathname = name;
  return url.href;
}
