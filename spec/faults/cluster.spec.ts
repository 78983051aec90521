/**
 * Faults of a Redis Cluster: slots on their way, failovers, primaries that die and come back, nodes that were reset, addresses
 * that lead nowhere. Three processes read and write meanwhile; no read may be older than a bump that had returned before it
 * began, nor than a strict commit that was kept.
 *
 * A failover may lose a bump that the replica has not got (the relay repairs it). So writers rest around those failovers
 * in which Redis does not wait for the replica.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { eventually } from '../support/deferred.js';
import { startProxy } from '../support/proxy.js';
import {
  privateRedisCluster,
  type RedisCluster,
  type RedisNode,
  type Resharding,
  waitUntil,
} from '../support/redis-cluster.js';
import { ClusterScene, type Traffic } from './cluster-scene.js';

describe('a Redis Cluster', function () {
  // An election may take several rounds.
  this.timeout(120_000);

  let cluster: RedisCluster;

  before(async function () {
    this.timeout(120_000);
    cluster = await privateRedisCluster();
  });

  afterEach(async function () {
    this.timeout(120_000);
    await cluster.formed();
  });

  /** Resolves with the owner of an item's slot, when its replica has all that it has. */
  async function replicatedOwner(scene: ClusterScene, item: number): Promise<RedisNode> {
    let owner = await scene.owner(item);
    await waitUntil(async () => {
      owner = await scene.owner(item);
      // A node may have become a replica since, and refuses the command then.
      return (await owner.admin.wait(1, 1_000).catch(() => 0)) >= 1;
    }, 'The replica has not caught up');
    return owner;
  }

  async function isPrimary(node: RedisNode): Promise<void> {
    await waitUntil(async () => (await node.role()) === 'master', 'The replica was not promoted');
  }

  /** The same harm to a cache with one partition and to one with many: work, traffic, and how it is judged. */
  function bothScenes() {
    const one = new ClusterScene(cluster, 1);
    const many = new ClusterScene(cluster, 64);
    return {
      ...{ one, many },
      during: (work: () => Promise<void>, traffic?: Traffic, restMs?: number) =>
        one.during(() => many.during(work, traffic, restMs), traffic, 0),
      async holds() {
        for (const scene of [one, many]) {
          scene.judge();
          await scene.hitting();
        }
      },
    };
  }

  for (const writes of ['scopes', 'global'] as const) {
    it(`moves slots, in each state of theirs, while writers bump ${writes}`, async () => {
      const { one, many, during, holds } = bothScenes();
      // All to one node: moves in both directions at once can leave two nodes that each take the other for the owner.
      const first = await cluster.reshard(one.prefixOf(0));
      const [, others] = await many.split(first.target);
      const prefixes = new Set(others.slice(0, 4).map((item) => many.prefixOf(item)));
      const moves: Resharding[] = [first];
      for (const prefix of prefixes) moves.push(await cluster.reshard(prefix, first.target));
      const each = async (step: (move: Resharding) => Promise<void>) => {
        for (const move of moves) await step(move);
        await sleep(300);
      };
      const bumped = writes === 'global' ? /:g:$/ : /:g:item/;
      for (const scene of [one, many]) await scene.hitting();
      // Bumps begin where the old entries are whole: in a slot on its way no fill succeeds, so none is left after a bump.
      await during(
        async () => {
          await each((move) => move.begin());
          await each(async (move) => move.move(...(await move.keys()).filter((key) => bumped.test(key))));
        },
        { writes: 'none' },
      );
      await during(
        async () => {
          await sleep(300);
          await each(async (move) => {
            const keys = await move.keys();
            await move.move(...keys.slice(0, keys.length / 2));
          });
          await each((move) => move.rest());
        },
        { writes },
      );
      // No later bump hides one that was lost on the way: from here on all is read.
      await during(() => each((move) => move.end()), { writes: 'none' }, 500);
      await during(() => cluster.formed());
      await holds();
    });
  }

  it('moves slots to and fro, also while an idle process keeps an old slot map', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.hitting();
    const idle = scene.process();
    await eventually(async () => expect(await scene.unanswered(idle)).to.deep.equal([]));
    await scene.during(async () => {
      for (let round = 0; round < 3; round++) {
        for (const item of scene.items.slice(0, 4)) await (await cluster.reshard(scene.prefixOf(item))).all();
      }
    });
    await scene.readEach(idle);
    scene.judge();
    await scene.hitting();
  });

  it('fails over by hand, where the replica waits for what its primary has', async () => {
    const scene = new ClusterScene(cluster, 64);
    const primary = await scene.owner(0);
    await scene.during(async () => {
      await cluster.failover(cluster.partnerOf(primary));
      await cluster.failover(primary);
    });
    scene.judge();
    await scene.hitting();
  });

  it('fails over by FORCE and back by TAKEOVER, each after the replica has what its primary has', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.during(() => sleep(200));
    for (const how of ['FORCE', 'TAKEOVER'] as const) {
      const from = await replicatedOwner(scene, 1);
      await scene.during(() => cluster.failover(cluster.partnerOf(from), how), { writes: 'none' });
      await scene.during(() => sleep(300));
    }
    scene.judge();
    await scene.hitting();
  });

  it('loses a primary, whose replica takes over, and gets it back', async () => {
    const { one, during, holds } = bothScenes();
    await during(() => sleep(200));
    const victim = await replicatedOwner(one, 0);
    const replica = cluster.partnerOf(victim);
    await victim.server.kill('SIGKILL');
    await during(async () => {
      await isPrimary(replica);
      await sleep(500);
      await victim.server.restart();
      await cluster.formed();
    });
    await holds();
  });

  it('has a primary that stands still until its replica has taken over, and then goes on', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.during(() => sleep(200));
    const victim = await replicatedOwner(scene, 1);
    const replica = cluster.partnerOf(victim);
    victim.server.pause();
    try {
      await scene.during(async () => isPrimary(replica));
    } finally {
      victim.server.resume();
    }
    await scene.during(() => cluster.formed());
    scene.judge();
    await scene.hitting();
  });

  it('has a primary that stands still for moments: reads of the others do not wait for it', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.hitting();
    const victim = await scene.owner(0);
    // However long a moment lasts on a busy machine.
    await cluster.partnerOf(victim).admin.config('SET', 'cluster-replica-no-failover', 'yes');
    const { own } = scene.process({}, { readDeadlineMs: 20_000 });
    await eventually(async () => expect((await own.lookup({ item: 0 })).outcome).to.equal('hit'));
    const [waiting, others] = await scene.split(victim);
    victim.server.pause();
    let answered = 0;
    const late = waiting.map((item) => own.lookup({ item }).finally(() => answered++));
    for (const item of others) expect((await own.lookup({ item })).outcome).to.equal('hit');
    expect(answered).to.equal(0);
    victim.server.resume();
    for (const lookup of late) expect((await lookup).outcome).to.equal('hit');

    await scene.during(async () => {
      for (let moment = 0; moment < 5; moment++) {
        victim.server.pause();
        await sleep(600 * Math.random());
        victim.server.resume();
        await sleep(200 * Math.random());
      }
    });
    await cluster.partnerOf(victim).admin.config('SET', 'cluster-replica-no-failover', 'no');
    scene.judge();
    await scene.hitting();
  });

  for (const kind of ['refuses', 'swallows'] as const) {
    it(`sends a process to an address that ${kind} all: its reads go to the source, and its bumps reject`, async () => {
      const scene = new ClusterScene(cluster, 64);
      await scene.hitting();
      const move = await cluster.reshard(scene.prefixOf(2));
      const nowhere = await startProxy(move.target.port);
      if (kind === 'refuses') nowhere.refuse();
      else nowhere.hold();
      let isReachable = false;
      const natMap = (address: string) =>
        address === `127.0.0.1:${move.target.port}` && !isReachable ? { host: '127.0.0.1', port: nowhere.port } : null;
      const { cache, own, namespace } = scene.process({ natMap });
      await eventually(async () => expect((await own.lookup({ item: 2 })).outcome).to.equal('hit'));
      await move.all();

      const began = performance.now();
      expect(await own.fetch({ item: 2 })).to.be.a('number');
      expect(performance.now() - began).to.be.below(2_000);
      expect((await own.lookup({ item: 2 })).outcome).to.equal('bypass');
      const error = await namespace.bump({ item: 2 }).then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      expect(error).to.include({ name: 'BumpError', outcome: 'not_sent' });
      expect(cache.state.unbumped).to.equal(1);
      isReachable = true;
      await eventually(() => expect(cache.state.unbumped).to.equal(0));
      await scene.during(() => sleep(300));
      scene.judge();
      await scene.hitting();
    });
  }

  it('has a node reset by CLUSTER RESET HARD, with all its keys, and takes it back as a new one', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.during(() => sleep(200));
    const victim = await replicatedOwner(scene, 3);
    const replica = cluster.partnerOf(victim);
    await scene.during(async () => {
      // A primary with keys refuses a reset.
      await victim.admin.multi().flushall().call('CLUSTER', 'RESET', 'HARD').exec();
      victim.id = String(await victim.cluster('MYID'));
      await sleep(500);
      // The others know no address of the node that it was, and do not fail it over by themselves.
      await replica.cluster('FAILOVER', 'TAKEOVER');
      await isPrimary(replica);
      await sleep(500);
    });
    const other = cluster.nodes.find((node) => node !== victim && node !== replica);
    for (const node of cluster.nodes) {
      if (node === victim) continue;
      const gone = String(await node.cluster('NODES'))
        .split('\n')
        .filter(
          (line) => /fail|noaddr/.test(line) || (line.includes(`:${victim.port}@`) && !line.startsWith(victim.id)),
        );
      for (const line of gone) await node.cluster('FORGET', line.split(' ')[0]!).catch(() => {});
    }
    await victim.cluster('MEET', '127.0.0.1', other!.port);
    await waitUntil(
      async () => (await victim.cluster('REPLICATE', replica.id).catch(() => 'unknown')) === 'OK',
      'The node does not know its primary',
    );
    await cluster.formed();
    await replicatedOwner(scene, 3);
    await scene.during(() => cluster.failover(victim));
    scene.judge();
    await scene.hitting();
  });
});
