/**
 * Mocha's root: servers for the whole run, and hooks that take back what each spec borrowed.
 *
 * REDIS_URL and DATABASE_URL name servers to use. What is not named is started, private to this run, and named
 * there for the specs. That happens after mocha has loaded the spec files: ask `redisUrl()` and `lendDatabase()`
 * in a hook or a spec, not while a file loads.
 */
import { keepsData, followRun, specsFailed, watchSpec } from './lenders.js';
import { forgetSpecKeys } from './redis.js';
import { startMissingServers } from './servers/missing-servers.js';

let stopServers: (options: { keep: boolean }) => Promise<void> = async () => {};
let endSpec: ReturnType<typeof watchSpec> | undefined;

/** Starts what REDIS_URL and DATABASE_URL don't name. Mocha calls it with its runner. */
export async function mochaGlobalSetup(this: Mocha.Runner): Promise<void> {
  followRun(this);
  const servers = await startMissingServers();
  Object.assign(process.env, servers.env);
  stopServers = servers.stop;
}

/** Stops what the run started, and deletes the run's keys from a server that was there before. */
export async function mochaGlobalTeardown(): Promise<void> {
  const keep = keepsData() && specsFailed();
  try {
    if (!keep) await forgetSpecKeys();
  } finally {
    await stopServers({ keep });
  }
}

export const mochaHooks = {
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
