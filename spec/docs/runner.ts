/**
 * Runs blocks, each in a database of its own and on an empty Redis, a few at a time: each lane has servers of its own,
 * so that a block may make roles, and configure Redis, without another noticing.
 */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import pg from 'pg';
import { type PostgresServer, startPostgres } from '../support/servers/postgres-server.js';
import { type RedisServer, startRedis } from '../support/servers/redis-server.js';
import type { Block } from './blocks.js';
import { FOLDER, outputOf } from './compile.js';

const LIMIT_MS = 60_000;
/** A relay beside a block has started before the block does. */
const BESIDE = (command: string) => `${command} >beside-$$.log 2>&1 &
until grep -q 'has started' beside-$$.log; do sleep 0.1; done
`;

export interface Run {
  readonly code: number | null;
  readonly stdout: string;
  /** Both streams, as a person would see them. */
  readonly printed: string;
  readonly durationMs: number;
}

export class Runner {
  readonly #lanes: readonly Lane[];

  private constructor(lanes: readonly Lane[]) {
    this.#lanes = lanes;
  }

  static async start(lanes: number): Promise<Runner> {
    return new Runner(await Promise.all(Array.from({ length: lanes }, () => Lane.start())));
  }

  /** Begins all of them, in order. `blocks: [n] -> [n]`. */
  runAll(blocks: readonly Block[]): Map<Block, Promise<Run>> {
    const runs = new Map<Block, Promise<Run>>();
    const waiting: { block: Block; resolve(run: Run): void; reject(error: unknown): void }[] = [];
    for (const block of blocks) {
      const run = new Promise<Run>((resolve, reject) => waiting.push({ block, resolve, reject }));
      run.catch(() => {}); // told where it is awaited
      runs.set(block, run);
    }
    for (const lane of this.#lanes) {
      const work = async () => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          await lane.run(next.block).then(next.resolve, next.reject);
        }
      };
      void work();
    }
    return runs;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.stop()));
  }
}

class Lane {
  readonly #redis: RedisServer;
  readonly #postgres: PostgresServer;
  #runs = 0;

  private constructor(redis: RedisServer, postgres: PostgresServer) {
    this.#redis = redis;
    this.#postgres = postgres;
  }

  static async start(): Promise<Lane> {
    const [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
    return new Lane(redis, postgres);
  }

  async stop(): Promise<void> {
    await Promise.all([this.#redis.stop(), this.#postgres.stop()]);
  }

  async run(block: Block): Promise<Run> {
    const database = `block_${++this.#runs}`;
    await this.#admin(async (client) => void (await client.query(`create database ${database}`)));
    const env = {
      ...process.env,
      DATABASE_URL: this.#postgres.url.replace(/[^/]+$/, database),
      REDIS_URL: this.#redis.url,
      PATH: `${join(FOLDER, 'node_modules/.bin')}:${process.env['PATH']}`,
      NO_COLOR: '1',
    };
    const startedAtMs = performance.now();
    try {
      const isShell = block.language === 'sh';
      const program = isShell && block.setup === undefined ? undefined : await run('node', [outputOf(block)], env);
      if (!isShell || (program !== undefined && program.code !== 0)) return this.#timed(startedAtMs, program!);
      const script = `${block.beside === undefined ? '' : BESIDE(block.beside)}${block.code}`;
      return this.#timed(startedAtMs, await run('bash', ['-euo', 'pipefail', '-c', script], env, block.until));
    } finally {
      await this.#tidy(database);
    }
  }

  #timed(startedAtMs: number, run: Omit<Run, 'durationMs'>): Run {
    return { ...run, durationMs: performance.now() - startedAtMs };
  }

  async #tidy(database: string): Promise<void> {
    await this.#redis.restart();
    await this.#admin(async (client) => {
      await client.query(`drop database ${database} with (force)`);
      const { rows } = await client.query<{ name: string }>(
        `select quote_ident(rolname) as name from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'`,
      );
      for (const { name } of rows) await client.query(`drop role ${name}`);
    });
  }

  async #admin(work: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = new pg.Client({ connectionString: this.#postgres.url });
    await client.connect();
    try {
      await work(client);
    } finally {
      await client.end();
    }
  }
}

/** In a process group of its own, which goes with it. `until`: SIGTERM once this was printed. */
async function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  until?: string,
): Promise<Omit<Run, 'durationMs'>> {
  const child = spawn(command, args, { cwd: FOLDER, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let printed = '';
  let asked = false;
  const kill = (signal: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, signal);
    } catch {
      // It has ended.
    }
  };
  const heard = (text: string) => {
    printed += text;
    if (until !== undefined && !asked && printed.includes(until)) {
      asked = true;
      kill('SIGTERM');
    }
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    heard(text);
  });
  child.stderr.setEncoding('utf8').on('data', heard);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
    // What a shell leaves running holds its output open.
    child.once('exit', () => kill('SIGTERM'));
  });
  const late = new AbortController();
  const limit = sleep(LIMIT_MS, 'late' as const, { signal: late.signal }).catch(() => 'late' as const);
  const code = await Promise.race([ended, limit]);
  late.abort();
  if (code === 'late') {
    kill('SIGKILL');
    await ended;
    return { code: null, stdout, printed: `${printed}\nIt did not end within ${LIMIT_MS} ms.` };
  }
  if (until !== undefined && !asked) {
    return { code: 1, stdout, printed: `${printed}\nIt ended without having printed "${until}".` };
  }
  return { code: isStopped(code, asked) ? 0 : code, stdout, printed };
}

/** A shell that SIGTERM ends together with its command has no exit code. */
function isStopped(code: number | null, asked: boolean): boolean {
  return asked && (code === null || code === 0 || code === 143);
}
