import { spawnSync } from 'node:child_process';
import { expect } from 'chai';
import { openCluster } from '../../demo/cluster.js';
import { measure } from '../../demo/measure.js';
import { openPostgres } from '../../demo/postgres.js';
import { databaseUrl } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';

describe('The demo on a Redis Cluster', () => {
  it('runs on three primaries that it starts: hits, edits that the relay bumps, and no stale read', async () => {
    const name = uniqueName();
    const redis = await openCluster();
    try {
      const postgres = await openPostgres(databaseUrl(), `gencache_${name}`);
      try {
        const size = { detectors: 100, workflows: 60, environments: 5 };
        const scale = { size, warmUp: { seconds: 2 }, replayedEvents: 100 };
        const plan = { name, seconds: 1, progress: false, scale };
        const { cold, warm } = await measure(postgres, redis, plan, new AbortController());
        for (const { phase, replay } of [cold, warm]) {
          expect(phase.staleReads + replay.staleReads).to.equal(0);
          expect(phase.sampled).to.be.above(0);
          expect(phase.queries).to.equal(phase.queriesRun);
        }
        expect(warm.phase.hits).to.be.above(0);
        expect(cold.phase.bumps.detector + warm.phase.bumps.detector).to.be.above(0);
      } finally {
        await postgres.close();
      }
    } finally {
      await redis.close();
    }
  });

  it('says plainly that redis-server is missing', async () => {
    expect((await rejection(openCluster(() => false))).message).to.equal(
      'With --cluster the demo starts three servers by redis-server, which is neither in PATH nor in the folders where ' +
        'packages put it. Install Redis, name the program in REDIS_SERVER, or leave out --cluster.',
    );
  });

  it('takes --cluster or REDIS_URL, and shows how it is called where it gets both', () => {
    const env = { ...process.env, REDIS_URL: 'redis://127.0.0.1:1' };
    const options = { env, encoding: 'utf8' } as const;
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'demo/run.ts', '--cluster'], options);
    expect({ status, stderr }).to.deep.include({ status: 64 });
    expect(stderr).to.match(/^Usage: .*\n.*\n {2}--cluster .* not with REDIS_URL\n/);
  });
});
