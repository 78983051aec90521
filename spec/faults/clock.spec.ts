/**
 * The clock of Redis jumps. Only a library such as libfaketime can move it for real, so these specs make the traces of a
 * jump: an answer from before it, which a gate moves by an hour, and expiries from before it, which are instants. Clocks
 * of processes are monotonic, and the clock of PostgreSQL serves reports only.
 */
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { freshnessKey, keyPrefix } from '../../lib/model/key.js';
import { eventually } from '../support/deferred.js';
import { lendRedis } from '../support/redis.js';
import type { GatedProgram } from './program.js';
import type { Reader } from './reader.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import { RELAY } from './steps.js';

const HOUR_S = 3_600;

describe('the clock of Redis', () => {
  let servers: Servers;
  let scene: Scene;
  let program: GatedProgram;
  let relay: WatchedRelay;
  let bounded: Reader;
  let redis: Redis;
  let key: string;

  before(async () => {
    servers = await lendServers();
  });

  beforeEach(async () => {
    ({ scene, program, relay, bounded } = await Scene.relayed(servers));
    redis = lendRedis({ url: servers.redis.url });
    key = freshnessKey(keyPrefix(scene.cache), scene.boundMs);
  });

  it('goes back between a check and its renewal: bounded readers leave the cache until the next check', async () => {
    program.gates.redis.rewrite = later(HOUR_S);
    // The freshness key expires, and no renewal replaces it.
    await bounded.away();
    expect(await redis.pttl(key)).to.be.below(scene.boundMs);
    program.gates.redis.rewrite = undefined;
    await scene.verify(relay);
  });

  it('goes forward between a check and its renewal: bounded readers leave the cache until the next check', async () => {
    program.gates.redis.rewrite = later(-HOUR_S);
    await bounded.away();
    program.gates.redis.rewrite = undefined;
    await scene.verify(relay);
  });

  it('goes back by an hour after the relay has died: entries do not stay fresh for that hour', async () => {
    const stop = program.stopAt(RELAY['asking for the time']);
    await stop.reached;
    await redis.pexpire(key, HOUR_S * 1_000);
    await program.kill();
    await scene.change(1);
    await bounded.away();
    expect(await redis.pttl(key)).to.be.above(scene.boundMs);
    await scene.verify(scene.relay());
  });

  it('goes back by an hour under a living relay: the relay cuts the expiry to the bound', async () => {
    await redis.pexpire(key, HOUR_S * 1_000);
    await eventually(async () => expect(await redis.pttl(key)).to.be.within(1, scene.boundMs));
    await scene.change(1);
    await scene.verify(relay);
  });

  it('goes forward by an hour: the freshness key expires, until the relay renews it', async () => {
    await redis.pexpire(key, 1);
    await scene.change(1);
    await scene.verify(relay);
  });

  /** Moves the time in the server's replies to TIME. */
  function later(seconds: number): (reply: string) => string {
    return (reply) =>
      reply.replace(/^\*2\r\n\$10\r\n(\d{10})\r\n/, (_, time: string) => `*2\r\n$10\r\n${Number(time) + seconds}\r\n`);
  }
});
