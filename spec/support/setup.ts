/**
 * Mocha's root: servers for the whole run, and hooks that take back what each spec borrowed.
 *
 * REDIS_URL and DATABASE_URL name servers to use. What is not named is started, private to this run, and named
 * there for the specs. That happens after mocha has loaded the spec files: ask `redisUrl()` and `lendDatabase()`
 * in a hook or a spec, not while a file loads.
 *
 * A parallel run (`npm test`) loads this file in its main process, which alone runs the global set-up, and in each
 * worker, which runs the hooks. The main process starts a pair of servers for each worker, since two files on one
 * PostgreSQL disturb each other: a transaction of one holds back what a relay of the other may take.
 */
import Mocha from 'mocha';
import { shareCompiled } from './compiled.js';
import { keepsData, followRun, specsFailed, watchSpec } from './lenders.js';
import { forgetSpecKeys } from './redis.js';
import { shareCluster } from './servers/cluster.js';
import { type MissingServers, startMissingServers } from './servers/missing-servers.js';
import { unprivileged } from './servers/postgres-server.js';

/** In the environment of workers: REDIS_URL and DATABASE_URL of each, as JSON. */
const OF_WORKERS = 'GENCACHE_SPEC_SERVERS';

let started: readonly MissingServers[] = [];
let endSpec: ReturnType<typeof watchSpec> | undefined;

/** Starts what REDIS_URL and DATABASE_URL don't name. Mocha calls it with its runner, in the main process. */
export async function mochaGlobalSetup(this: Mocha.Runner & { isParallelMode(): boolean }): Promise<void> {
  await shareCluster(unprivileged());
  if (!this.isParallelMode()) {
    started = [await startMissingServers()];
    Object.assign(process.env, started[0]!.env);
    return;
  }
  followRun(this);
  const workers = Number(process.env['GENCACHE_SPEC_WORKERS']);
  const starting = Promise.all(Array.from({ length: workers }, () => startMissingServers()));
  shareCompiled();
  started = await starting;
  process.env[OF_WORKERS] = JSON.stringify(started.map(({ env }) => env));
}

/** Stops what the run started, and deletes the run's keys from a server that was there before. */
export async function mochaGlobalTeardown(): Promise<void> {
  const keep = keepsData() && specsFailed();
  try {
    if (!keep) await forgetSpecKeys();
  } finally {
    await Promise.all(started.map((servers) => servers.stop({ keep })));
  }
}

/**
 * In a worker, names its pair of servers. A further worker, in the place of one that died, starts its own: its end
 * ends those (`servers/reaper.ts`).
 */
async function findServers(): Promise<void> {
  const pairs = process.env[OF_WORKERS];
  if (pairs === undefined || process.env['REDIS_URL']) return;
  const pair = (JSON.parse(pairs) as MissingServers['env'][])[Number(process.env['MOCHA_WORKER_ID'])];
  Object.assign(process.env, pair ?? (await startMissingServers()).env);
}

// Mocha gives the runner of a worker to no hook.
const { run } = Mocha.Runner.prototype;
Mocha.Runner.prototype.run = function (this: Mocha.Runner, ...args: Parameters<typeof run>) {
  followRun(this);
  return run.apply(this, args);
};

export const mochaHooks = {
  beforeAll: findServers,

  beforeEach(): void {
    endSpec = watchSpec();
  },

  /** A leak fails the spec it happened in. Thrown, it would end the run: so mocha treats a hook's own failure. */
  async afterEach(this: Mocha.Context): Promise<void> {
    const leak = await endSpec?.({ failed: this.currentTest?.state === 'failed' });
    endSpec = undefined;
    const hook = this.test as Mocha.Hook | undefined;
    if (leak !== undefined) hook?.error(leak);
  },

  /** What was borrowed outside of any spec, for instance by a `beforeEach` that failed. */
  async afterAll(): Promise<void> {
    const leak = await watchSpec()({ failed: specsFailed() });
    if (leak !== undefined) throw leak;
  },
};
