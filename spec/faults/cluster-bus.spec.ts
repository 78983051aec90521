/**
 * A partition of the bus, by which the nodes of a Redis Cluster hear of each other. Clients, and replicas, reach each node all
 * the time: a primary that is cut off serves until it notices, and another one may serve its slots by then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { eventually } from '../support/deferred.js';
import { privateRedisCluster, type RedisCluster, waitUntil } from '../support/redis-cluster.js';
import { rejection } from '../support/rejection.js';
import { ClusterScene } from './cluster-scene.js';

describe('the bus of a Redis Cluster', function () {
  // An election may take several rounds.
  this.timeout(120_000);

  let cluster: RedisCluster;

  before(async function () {
    this.timeout(120_000);
    cluster = await privateRedisCluster({ hasProxies: true });
  });

  afterEach(async function () {
    this.timeout(120_000);
    // A spec that failed may have left it cut.
    if (this.currentTest?.isFailed()) cluster.cutBus();
    await cluster.formed();
  });

  /** Whether replicas may take over: a bump that one has not got yet would be lost, and the relay's to repair. */
  async function allowFailover(isAllowed: boolean): Promise<void> {
    for (const { admin } of cluster.nodes) {
      await admin.config('SET', 'cluster-replica-no-failover', isAllowed ? 'no' : 'yes');
    }
  }

  it('has one primary cut off, whose replica takes over: the others serve all the time', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.hitting();
    const victim = await scene.owner(0);
    const replica = cluster.partnerOf(victim);
    const [cut] = await scene.split(victim);
    const reader = scene.process();
    const { cache, namespace } = reader;
    await allowFailover(false);
    await scene.during(async () => {
      cluster.cutBus([victim]);
      await waitUntil(() => victim.knowsState('fail'), 'The primary does not notice that it is cut off');
      await eventually(async () => expect(await scene.unanswered(reader)).to.deep.equal(cut));
      const [item] = cut as [number];
      expect(await rejection(namespace.bump({ item }))).to.have.property('name', 'BumpError');
      expect(cache.state.unbumped).to.equal(1);
      await waitUntil(async () => (await victim.admin.wait(1, 1_000)) === 1, 'The replica has not caught up');
      await allowFailover(true);
      await waitUntil(async () => (await replica.role()) === 'master', 'The replica was not promoted');
      // The slots have another primary, and the one that is cut off has not heard of it.
      await eventually(async () => expect(await scene.unanswered(reader)).to.deep.equal([]));
      expect(await victim.role()).to.equal('master');
      await eventually(() => expect(cache.state.unbumped).to.equal(0));
    });
    // Redis can be told to go on with reads where it is cut off. Its generations are those from before.
    const generation = `${scene.prefixOf(cut[0]!)}g:item=${cut[0]}`;
    expect(await rejection(victim.admin.get(generation)))
      .to.have.property('message')
      .that.contains('CLUSTERDOWN');
    await victim.admin.config('SET', 'cluster-allow-reads-when-down', 'yes');
    expect(await victim.admin.get(generation)).to.not.equal(await replica.admin.get(generation));
    await victim.admin.config('SET', 'cluster-allow-reads-when-down', 'no');
    await scene.during(async () => {
      cluster.cutBus();
      await cluster.formed();
    });
    expect(await victim.role()).to.equal('slave');
    scene.judge();
    await scene.hitting();
  });

  it('leaves no two nodes together: no read hits until they have found each other', async () => {
    const scene = new ClusterScene(cluster, 64);
    await scene.hitting();
    const reader = scene.process();
    await allowFailover(false);
    await scene.during(async () => {
      cluster.cutBus(...cluster.nodes.map((node) => [node]));
      for (const node of cluster.nodes) {
        await waitUntil(() => node.knowsState('fail'), 'A node does not notice that it is alone');
      }
      await eventually(async () => expect(await scene.unanswered(reader)).to.deep.equal(scene.items));
      await sleep(300);
      cluster.cutBus();
      await cluster.formed();
    });
    await allowFailover(true);
    expect(scene.failedBumps).to.be.above(0);
    scene.judge();
    await scene.hitting();
  });
});
