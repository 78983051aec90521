import { spawnSync } from 'node:child_process';
import { expect } from 'chai';
import { openCluster } from '../../demo/cluster.js';
import { measure, type Plan } from '../../demo/measure.js';
import { openPostgres } from '../../demo/postgres.js';
import { type DemoRedis, openRedis } from '../../demo/redis.js';
import { databaseUrl } from '../support/postgres.js';
import { redisUrl, uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

/** The demo in small, on this Redis, which it closes. */
async function run(redis: DemoRedis, { name = uniqueName(), local }: Partial<Pick<Plan, 'name' | 'local'>> = {}) {
  try {
    const postgres = await openPostgres(databaseUrl(), `gencache_${name}`);
    try {
      const size = { detectors: 100, workflows: 60, environments: 5 };
      const scale = { size, warmUp: { seconds: 2 }, replayedEvents: 100 };
      const plan = { name, seconds: 1, progress: false, local, scale };
      const { cold, warm } = await measure(postgres, redis, plan, new AbortController());
      for (const { phase, replay } of [cold, warm]) {
        expect(phase.staleReads + replay.staleReads).to.equal(0);
        expect(phase.sampled).to.be.above(0);
        expect(phase.queries).to.equal(phase.queriesRun);
      }
      expect(warm.phase.hits).to.be.above(0);
      expect(cold.phase.bumps.detector + warm.phase.bumps.detector).to.be.above(0);
      return { cold, warm };
    } finally {
      await postgres.close();
    }
  } finally {
    await redis.close();
  }
}

describe('The demo with --local track', () => {
  it('answers most reads from the process, and none of them stale', async () => {
    const name = uniqueName();
    const { warm } = await run(await openRedis(redisUrl(), name), { name, local: 'track' });
    expect(warm.phase.localHits / warm.phase.reads).to.be.above(0.5);
  });
});

describe('The demo on a Redis Cluster', () => {
  it('runs on three primaries that it starts: hits, edits that the relay bumps, and no stale read', async () => {
    const { warm } = await run(await openCluster());
    expect(warm.phase.localHits).to.equal(0);
  });

  it('says plainly that redis-server is missing', async () => {
    expect((await rejection(openCluster(() => false))).message).to.equal(
      'With --cluster the demo starts three servers by redis-server, which is neither in PATH nor in the folders where ' +
        'packages put it. Install Redis, name the program in REDIS_SERVER, or leave out --cluster.',
    );
  });

  it('refuses --local track without a Redis that is named, and shows how it is called', () => {
    const { REDIS_URL: _, ...env } = process.env;
    const options = { env, encoding: 'utf8' } as const;
    const call = ['--import', 'tsx', 'demo/run.ts', '--local', 'track'];
    const { status, stderr } = spawnSync(process.execPath, call, options);
    expect(status).to.equal(64);
    expect(stderr).to.contain('--local MODE').and.to.contain('track needs REDIS_URL or --cluster');
  });

  it('takes --cluster or REDIS_URL, and shows how it is called where it gets both', () => {
    const env = { ...process.env, REDIS_URL: 'redis://127.0.0.1:1' };
    const options = { env, encoding: 'utf8' } as const;
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'demo/run.ts', '--cluster'], options);
    expect({ status, stderr }).to.deep.include({ status: 64 });
    expect(stderr).to.match(/^Usage: .*\n.*\n {2}--cluster .* not with REDIS_URL\n/);
  });
});
