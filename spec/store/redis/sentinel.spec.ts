import { expect } from 'chai';
import type { RedisOptions } from 'ioredis';
import { type StoreSignal, StoreUnavailableError } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { privateRedisSentinels, type RedisSentinels } from '../../support/redis-sentinel.js';
import type { RedisServer } from '../../support/servers/redis-server.js';
import { rejection } from '../../support/rejection.js';
import { AskedStore } from '../../ports/asked-store.js';

const REPLICA =
  'The Redis server is a replica, which may lag behind its primary. Pass the primary, or the Sentinels that know it.';

describe('a store behind Sentinels', () => {
  let set: RedisSentinels;

  before(async () => {
    set = await privateRedisSentinels();
  });

  function lendStore(options: Pick<RedisOptions, 'sentinels' | 'name'> = set.options, limitMs = 2_000) {
    const store = redisStore(lendRedis({ ...options, lazyConnect: true }));
    lend({ what: 'the store', close: () => store.close() });
    const signals: StoreSignal[] = [];
    store.listen!((signal) => signals.push(signal));
    const downs = () => signals.flatMap((signal) => (signal.kind === 'down' ? [signal.error.message] : []));
    return { store, asked: new AskedStore(store, uniqueName(), limitMs), downs };
  }

  const incarnationAt = async (server: RedisServer) => {
    const info = await lendRedis({ url: server.url }).info();
    return ['run_id', 'master_replid'].map((name) => new RegExp(`${name}:(\\w+)`).exec(info)![1]).join('.');
  };
  const roleOf = async (server: RedisServer) => (await lendRedis({ url: server.url }).role())[0];

  it('asks the next Sentinel where one names a demoted primary', async () => {
    const primary = await set.primary();
    const replica = set.servers.find((server) => server !== primary)!;
    // It agrees with no other, so it never learns better.
    const config = `sentinel monitor ${set.name} ${replica.host} ${replica.port} 9\n`;
    const alone = await privateRedis({ args: ['--sentinel'], config });
    const [one] = set.options.sentinels;
    const { store, asked } = lendStore({ sentinels: [alone, one!], name: set.name });
    await eventually(() => asked.minted());
    expect(store.incarnation).to.equal(await incarnationAt(primary));

    const misled = lendStore({ sentinels: [alone], name: set.name });
    const error = await rejection(misled.asked.read(misled.asked.entryKey()));
    expect(error.message).to.equal(
      `Redis was not connected: ${REPLICA.slice(0, -1)}. Check the server's address and the network.`,
    );
    expect(misled.downs()).to.include(REPLICA);
  });

  it('is down while no Sentinel answers, goes on by an open connection, and is up again after', async () => {
    const { asked } = lendStore();
    await asked.minted();
    await Promise.all(set.sentinels.map((sentinel) => sentinel.kill('SIGKILL')));
    expect(await asked.read(asked.entryKey())).to.deep.equal([null]);
    const late = lendStore();
    const error = await rejection(late.asked.read(late.asked.entryKey()));
    expect(error).to.include({ name: 'StoreUnavailableError', sent: false });
    expect(error.message).to.match(
      /^Redis was not connected: No Sentinel told the address of a primary named 'main': connect ECONNREFUSED /,
    );
    await late.store.close();
    const waiting = lendStore();
    await rejection(waiting.asked.read(waiting.asked.entryKey()));
    await Promise.all(set.sentinels.map((sentinel) => sentinel.restart()));
    await eventually(async () => expect(await waiting.asked.read(waiting.asked.entryKey())).to.deep.equal([null]));
    await set.formed();
  });

  it('leaves a primary that was replaced by SENTINEL FAILOVER, while that one still takes it for one', async () => {
    const { store, asked, downs } = lendStore();
    const { key } = await asked.minted();
    const former = await set.primary();
    expect(store.incarnation).to.equal(await incarnationAt(former));
    const bumps: Promise<unknown>[] = [];
    const bumping = setInterval(() => bumps.push(asked.bump([key]).catch((error: unknown) => error)), 5);
    lend({ what: 'the bumps', close: () => clearInterval(bumping) });
    const primary = await set.failover();
    await eventually(async () => expect(store.incarnation).to.equal(await incarnationAt(primary)));
    expect(await roleOf(former)).to.equal('master');
    clearInterval(bumping);
    // Each bump is made, or is one that may have been made.
    for (const result of await Promise.all(bumps)) {
      if (!(result instanceof Error)) continue;
      expect(result).to.be.instanceOf(StoreUnavailableError);
      expect(result).to.have.property('sent').that.is.a('boolean');
    }
    expect(downs()).to.include('Sentinel made another Redis server the primary.');
    const value = await asked.text(key);
    await asked.bump([key]);
    expect(await asked.text(key)).to.not.equal(value);
    expect(await lendRedis({ url: primary.url }).get(key)).to.equal(await asked.text(key));
  });

  // The last one: Sentinels that stood still agree to no failover for half a minute.
  it('leaves no connection when it is closed while it asks a Sentinel that stands still', async () => {
    const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length;
    const before = sockets();
    for (const sentinel of set.sentinels) sentinel.pause();
    try {
      const { store } = lendStore();
      await eventually(() => expect(sockets()).to.be.above(before + set.sentinels.length));
      await store.close();
      await eventually(() => expect(sockets()).to.equal(before));
    } finally {
      for (const sentinel of set.sentinels) sentinel.resume();
    }
  });
});
