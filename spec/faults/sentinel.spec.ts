/**
 * A primary, two replicas and three Sentinels: a failover by hand, after which two servers take themselves for the primary
 * for ten seconds, and the death of a primary. Readers, writers and the relay follow the Sentinels. Until the relay has
 * repaired the new primary, readers without a bound may hit what it missed (docs/protocol.md, rule 10).
 */
import { expect } from 'chai';
import { eventually } from '../support/deferred.js';
import { privatePostgres } from '../support/postgres.js';
import { lendRedis } from '../support/redis.js';
import { privateRedisSentinels, type RedisSentinels } from '../support/redis-sentinel.js';
import { TrackedCache } from '../support/tracked-cache.js';
import type { PostgresServer } from '../support/servers/postgres-server.js';
import type { RedisServer } from '../support/servers/redis-server.js';
import type { Reader } from './reader.js';
import { Scene, type WatchedRelay } from './scene.js';

/** A heartbeat far longer than the bound: the bound alone must hold. */
const LOCAL = { mode: 'track', maxEntries: 10, heartbeatMs: 4_000 } as const;

describe('a failover by Sentinel', () => {
  let postgres: PostgresServer;
  let set: RedisSentinels;
  let scene: Scene;
  let relay: WatchedRelay;
  let readers: Reader[];
  /** The same, without a round trip. */
  let tracking: Reader[];
  /** A further cache, without a bound. */
  let reads: TrackedCache;
  /** How the bumps of transactions ended. */
  let bumps: Set<string>;

  before(async () => {
    // A primary that is killed has no successor for longer than a bump waits.
    set = await privateRedisSentinels({ settings: ['sentinel down-after-milliseconds main 2000'] });
    postgres = await privatePostgres();
  });

  beforeEach(async () => {
    scene = await Scene.open({ postgres, redis: await set.primary(), sentinels: set.options });
    readers = [scene.reader(), scene.reader({ bounded: false })];
    tracking = [scene.reader({ local: LOCAL }), scene.reader({ bounded: false, local: LOCAL })];
    bumps = new Set();
    relay = scene.relay();
    await scene.settled(relay);
    await scene.ageEpoch();
    await tracked();
    const primary = await set.primary();
    reads = await TrackedCache.open({ url: primary.url, reader: set.options });
    await lendRedis({ url: primary.url }).wait(2, 0);
  });

  /** Writes on the new primary: no read is older than the heartbeat from then on, and the process answers by itself again. */
  async function verifyReads(primary: RedisServer): Promise<void> {
    reads.writeOn(primary.url);
    await eventually(() => expect(reads.commandsPort).to.equal(primary.port));
    await reads.bumpThrough();
    await reads.verify();
  }

  /** Resolves once each reader that tracks answers by itself. */
  async function tracked(): Promise<void> {
    const before = tracking.map(({ trackedHits }) => trackedHits);
    await eventually(() => tracking.forEach((one, i) => expect(one.trackedHits).to.be.above(before[i]!)));
  }

  /** Changes items over and over, as triggers record it and in transactions that bump, until `work` is done. */
  async function writingDuring(work: () => Promise<RedisServer>): Promise<RedisServer> {
    const over = new AbortController();
    const writing = (async () => {
      while (!over.signal.aborted) {
        await scene.change(1);
        bumps.add(await scene.transact(2, readers[1]!));
      }
    })();
    try {
      return await Promise.race([work(), writing.then(() => Promise.reject(new Error('The writer has ended.')))]);
    } finally {
      over.abort();
      await writing;
    }
  }

  async function verify(primary: RedisServer): Promise<void> {
    scene.gate.leadTo(primary.port);
    await tracked();
    await scene.verify(relay);
    expect(relay.repairs).to.include('store');
  }

  it('by hand: the former primary, which lives on, is left at once, and the relay repairs the new one', async () => {
    const former = await set.primary();
    const repairs = relay.repairs.length;
    const primary = await writingDuring(async () => {
      const successor = await set.failover();
      await verifyReads(successor);
      await eventually(() => expect(relay.repairs.length).to.be.above(repairs));
      expect(await lendRedis({ url: former.url }).role()).to.include('master');
      await eventually(async () => expect(await lendRedis({ url: former.url }).role()).to.include('slave'));
      return successor;
    });
    await verify(primary);
    await set.formed();
  });

  it('of a primary that is killed: reads go to the source, no bump is lost, and the relay repairs the new one', async () => {
    const former = await set.primary();
    const primary = await writingDuring(async () => {
      await eventually(() => expect([...bumps]).to.include('done'));
      await former.kill('SIGKILL');
      for (const reader of readers) await reader.away();
      const successor = await set.successorOf(former);
      await verifyReads(successor);
      return successor;
    });
    await verify(primary);
    expect([...bumps]).to.have.members(['done', 'pending']);
  });
});
