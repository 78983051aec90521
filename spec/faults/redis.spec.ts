/**
 * Faults of Redis: it is down, stopped, flushed, restored from an old snapshot, replaced by a replica that missed bumps, or
 * split in two. Its clients connect to it through `scene.gate`.
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
    // A replica gets its first copy at once.
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

    it('is down, and comes back empty: the commits in between are bumped', async () => {
      await scene.ageEpoch();
      await redis.kill('SIGKILL');
      await scene.changeAll();
      expect(await scene.waiting()).to.equal(scene.items.length);
      await redis.restart();
      await scene.verify(relay);
    });

    it('is stopped, and continued: the commits in between are bumped', async () => {
      redis.pause();
      await scene.changeAll();
      redis.resume();
      await scene.verify(relay);
    });

    it('is stopped for longer than the bound: no read exceeds the bound', async () => {
      redis.pause();
      await scene.changeAll();
      const { beganMs } = (await scene.reader().read())[0]!;
      await eventually(() => expect(performance.now() - beganMs).to.be.above(scene.boundMs));
      redis.resume();
      await scene.verify(relay);
    });

    it('is flushed before a commit and after its bump: the relay repairs', async () => {
      const client = lendRedis({ url: redis.url });
      await scene.change(1, async () => void (await client.flushall()));
      await client.flushall();
      await scene.verify(relay);
      expect(relay.repairs).to.include('mark');
    });

    it('restarts from a snapshot older than bumps whose events are gone: the relay repairs', async () => {
      await lendRedis({ url: redis.url }).save();
      await scene.changeAll();
      await scene.settled(relay);
      expect(await scene.waiting()).to.equal(0);
      await scene.ageEpoch();
      await redis.kill('SIGKILL');
      await redis.restart();
      await scene.verify(relay);
      expect(relay.repairs).to.include('store');
    });

    it('fails over to a replica that missed bumps whose events are gone: the relay repairs', async () => {
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
      it(`and the relay is killed before ${name}: the next relay repairs`, async () => {
        const stop = program.stopAt(step);
        await failOverTo(replica);
        program.gates.redis.leadTo(replica.port);
        await stop.reached;
        await program.kill();
        await scene.verify(scene.relay());
      });

      it(`and the relay is stopped before ${name}, with another relay at work`, async () => {
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

    for (const name of ['the authority check', 'COMMIT'] as const) {
      it(`between a bump on the old primary and ${name}: the new primary gets the bump too`, async () => {
        // Before the stop: there the relay's transaction holds the row of the authority.
        await scene.ageEpoch();
        const stop = program.stopAt(RELAY[name]);
        await scene.change(1);
        await stop.reached;
        await promote(replica);
        program.gates.redis.leadTo(replica.port);
        stop.release();
        await scene.verify(relay);
      });
    }

    it('and the old primary lives on: its relay deletes no event for a bump made there', async () => {
      // The old relay has checked, and is about to claim.
      const claim = program.stopAt(RELAY['the claim']);
      await scene.change(1);
      await claim.reached;
      await failOverTo(replica);
      // The new relay takes the events so far, and is stopped before its next claim.
      const newer = await scene.program();
      const other = scene.runRelay(newer);
      await scene.settled(other);
      const begin = newer.stopAt(RELAY['the claim']);
      await scene.change(2);
      await begin.reached;
      const bump = program.stopAt(RELAY['the authority check']);
      claim.release();
      await bump.reached;
      bump.release();
      await eventually(() => expect(relay.polls.at(-1)!.trusted).to.equal(false));
      begin.release();
      await scene.verify(other);
    });
  });

  it('is split in two, with readers and a relay on each side: no read exceeds the bound', async () => {
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
    // Until each side has become authoritative again.
    while (repairs().some((count, i) => count === before[i])) await scene.changeAll();
    // The old primary becomes a replica.
    await lendRedis({ url: redis.url }).replicaof('127.0.0.1', replica.port);
    // The old relay renews no more; its last renewal expires within the bound.
    await there.away();
    await scene.verify(other, { hit: false });
  });

  /** A replica in step with Redis, which then misses the bumps that `work` causes. */
  async function replicaThatMisses(work: () => Promise<void>, relay: WatchedRelay): Promise<RedisServer> {
    const replication = await Gate.open(redis.port);
    const replica = await privateRedis({ args: ['--replicaof', '127.0.0.1', String(replication.port)] });
    const client = lendRedis({ url: replica.url });
    await eventually(async () => expect(await client.info('replication')).to.include('master_link_status:up'));
    await scene.settled(relay);
    await inStep(client);
    // No server listens on that port.
    replication.leadTo(1);
    await work();
    await scene.settled(relay);
    expect(await scene.waiting()).to.equal(0);
    return replica;
  }

  /** Resolves when a replica has all data that its primary has now. */
  async function inStep(replica: Redis): Promise<void> {
    const offset = (info: string, name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(info)![1]);
    const primary = lendRedis({ url: redis.url });
    const least = offset(await primary.info('replication'), 'master_repl_offset');
    await eventually(async () =>
      expect(offset(await replica.info('replication'), 'slave_repl_offset')).to.be.at.least(least),
    );
  }

  async function failOverTo(replica: RedisServer): Promise<void> {
    await scene.ageEpoch();
    await promote(replica);
  }

  async function promote(replica: RedisServer): Promise<void> {
    await lendRedis({ url: replica.url }).replicaof('NO', 'ONE');
    scene.gate.leadTo(replica.port);
  }
});
