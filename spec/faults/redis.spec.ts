/**
 * What happens to Redis: it is down, stopped, flushed, goes back to an old snapshot, fails over to a replica that missed
 * bumps, or splits in two. `scene.gate` is where its clients find it.
 */
import { expect } from 'chai';
import { Redis } from 'ioredis';
import { eventually } from '../support/deferred.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import type { RedisServer } from '../support/servers/redis-server.js';
import { Gate } from './gate.js';
import type { GatedProgram } from './program.js';
import type { Reader } from './reader.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import { RELAY, REPAIRING } from './steps.js';

describe('Redis', () => {
  let servers: Servers;
  let redis: RedisServer;
  let scene: Scene;

  before(async () => {
    servers = await lendServers();
  });

  /** Each spec has a Redis of its own. */
  beforeEach(async () => {
    // A replica is served at once.
    redis = await privateRedis({ args: ['--repl-diskless-sync-delay', '0'] });
    scene = await Scene.open({ ...servers, redis });
    scene.reader();
    scene.reader({ bounded: false });
  });

  describe('with a relay', () => {
    let relay: WatchedRelay;

    beforeEach(async () => {
      relay = scene.relay();
      await scene.settled(relay);
    });

    it('is down: what commits meanwhile is bumped when it is back, empty', async () => {
      await scene.endReign();
      await redis.kill('SIGKILL');
      await scene.changeAll();
      expect(await scene.waiting()).to.equal(scene.items.length);
      await redis.restart();
      await scene.verify(relay);
    });

    it('is stopped: what commits meanwhile is bumped when it is continued', async () => {
      redis.pause();
      await scene.changeAll();
      redis.resume();
      await scene.verify(relay);
    });

    it('is stopped for longer than the bound', async () => {
      redis.pause();
      await scene.changeAll();
      const { beganMs } = (await scene.reader().read())[0]!;
      await eventually(() => expect(performance.now() - beganMs).to.be.above(scene.boundMs));
      redis.resume();
      await scene.verify(relay);
    });

    it('is flushed, between a commit and its bump and after', async () => {
      const client = lendRedis({ url: redis.url });
      await scene.change(1, async () => void (await client.flushall()));
      await client.flushall();
      await scene.verify(relay);
      expect(relay.repairs).to.include('mark');
    });

    it('is restarted from a snapshot older than bumps whose events are gone', async () => {
      await lendRedis({ url: redis.url }).save();
      await scene.changeAll();
      await scene.settled(relay);
      expect(await scene.waiting()).to.equal(0);
      await scene.endReign();
      await redis.kill('SIGKILL');
      await redis.restart();
      await scene.verify(relay);
      expect(relay.repairs).to.include('store');
    });

    it('fails over to a replica that missed bumps whose events are gone', async () => {
      const replica = await replicaThatMisses(() => scene.changeAll(), relay);
      await redis.kill('SIGKILL');
      await failOverTo(replica);
      await scene.verify(relay);
      expect(relay.repairs).to.include('store');
    });
  });

  describe('fails over to a replica that missed bumps', () => {
    let program: GatedProgram;
    let relay: WatchedRelay;
    let replica: RedisServer;

    beforeEach(async () => {
      program = await scene.program();
      relay = scene.runRelay(program);
      await scene.settled(relay);
      replica = await replicaThatMisses(() => scene.changeAll(), relay);
    });

    for (const [name, step] of Object.entries(REPAIRING)) {
      it(`and the relay is killed before ${name}: the next one repairs`, async () => {
        const stop = program.stopAt(step);
        await failOverTo(replica);
        program.gates.redis.leadTo(replica.port);
        await stop.reached;
        await program.kill();
        await scene.verify(scene.relay());
      });

      it(`and the relay is stopped before ${name}, with another one at work`, async () => {
        const stop = program.stopAt(step);
        await failOverTo(replica);
        program.gates.redis.leadTo(replica.port);
        await stop.reached;
        program.suspend();
        const other = scene.relay();
        await scene.settled(other);
        await scene.change(1);
        program.resume();
        stop.release();
        await scene.verify(relay);
        await scene.verify(other);
      });
    }

    for (const name of ['asking who counts', 'COMMIT'] as const) {
      it(`between the bump, which the old one took, and ${name}`, async () => {
        // Now: from there on the relay's transaction holds that row.
        await scene.endReign();
        const stop = program.stopAt(RELAY[name]);
        await scene.change(1);
        await stop.reached;
        await promote(replica);
        program.gates.redis.leadTo(replica.port);
        stop.release();
        await scene.verify(relay);
      });
    }

    it('and the old one lives on, with a relay that deletes nothing for a bump made there', async () => {
      // It has checked, and is about to claim.
      const claim = program.stopAt(RELAY['the claim']);
      await scene.change(1);
      await claim.reached;
      await failOverTo(replica);
      // The new one's relay takes what was there, and does not come to its next claim.
      const newer = await scene.program();
      const other = scene.runRelay(newer);
      await scene.settled(other);
      const begin = newer.stopAt(RELAY.BEGIN);
      await scene.change(2);
      await begin.reached;
      const bump = program.stopAt(RELAY['asking who counts']);
      claim.release();
      await bump.reached;
      bump.release();
      await eventually(() => expect(relay.polls.at(-1)!.trusted).to.equal(false));
      begin.release();
      await scene.verify(other);
    });
  });

  it('is split in two, with readers and a relay on each side', async () => {
    const relay = scene.relay(redis.url);
    await scene.settled(relay);
    const replica = await replicaThatMisses(() => scene.changeAll(), relay);
    const there: Reader = scene.reader({ url: redis.url });
    await there.hitting();
    await failOverTo(replica);
    const other = scene.relay();
    await scene.settled(other, there);
    const repairs = () => [relay, other].map((one) => one.repairs.length);
    const before = repairs();
    // Until the old side has claimed to be the one, and the new side again.
    while (repairs().some((count, i) => count === before[i])) await scene.changeAll();
    // The old one comes back as a replica.
    await lendRedis({ url: redis.url }).replicaof('127.0.0.1', replica.port);
    // The relay there vouches no more; what it did vouch for stands for the bound.
    await there.away();
    await scene.verify(other, { hit: false });
  });

  /** A replica in step with Redis, which then misses what `work` makes the relay bump. */
  async function replicaThatMisses(work: () => Promise<void>, relay: WatchedRelay): Promise<RedisServer> {
    const replication = await Gate.open(redis.port);
    const replica = await privateRedis({ args: ['--replicaof', '127.0.0.1', String(replication.port)] });
    const client = lendRedis({ url: replica.url });
    await eventually(async () => expect(await client.info('replication')).to.include('master_link_status:up'), {
      withinMs: 15_000,
    });
    await scene.settled(relay);
    await inStep(client);
    // Nothing listens there.
    replication.leadTo(1);
    await work();
    await scene.settled(relay);
    expect(await scene.waiting()).to.equal(0);
    return replica;
  }

  /** Resolves when a replica has all that its primary had when this was called. */
  async function inStep(replica: Redis): Promise<void> {
    const offset = (info: string, name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(info)![1]);
    const primary = lendRedis({ url: redis.url });
    const least = offset(await primary.info('replication'), 'master_repl_offset');
    await eventually(async () =>
      expect(offset(await replica.info('replication'), 'slave_repl_offset')).to.be.at.least(least),
    );
  }

  async function failOverTo(replica: RedisServer): Promise<void> {
    await scene.endReign();
    await promote(replica);
  }

  async function promote(replica: RedisServer): Promise<void> {
    await lendRedis({ url: replica.url }).replicaof('NO', 'ONE');
    scene.gate.leadTo(replica.port);
  }
});
