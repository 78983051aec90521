/**
 * Faults of Redis and of the network while a process answers reads without a round trip (`local`, `mode: 'track'`). In each
 * of them: no read that begins later than one heartbeat after a bump has returned answers what that bump made old, and with
 * the fault over the process answers by itself again.
 */
import { expect } from 'chai';
import { startProxy } from '../support/proxy.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { HEARTBEAT_MS, TrackedCache } from '../support/tracked-cache.js';

describe('reads without a round trip', () => {
  async function lendReads() {
    const server = await privateRedis();
    return { server, admin: lendRedis({ url: server.url }), reads: await TrackedCache.open({ url: server.url }) };
  }

  it('CLIENT KILL of the tracking connection alone, again and again, between bumps', async () => {
    const { admin, reads } = await lendReads();
    for (let round = 0; round < 3; round++) {
      const clients = String(await admin.client('LIST')).split('\n');
      const [id] = clients.filter((line) => /flags=\S*t/.test(line)).map((line) => /^id=(\d+)/.exec(line)![1]!);
      await admin.call('CLIENT', 'KILL', 'ID', id!);
      await reads.bumpAll();
      await reads.settled();
    }
    await reads.verify();
  });

  it('FLUSHALL', async () => {
    const { admin, reads } = await lendReads();
    for (let round = 0; round < 3; round++) {
      await admin.flushall();
      await reads.bumpAll();
      await reads.settled();
    }
    await reads.verify();
  });

  it('SIGSTOP and SIGCONT of Redis, with a bump that waits in its socket: the source answers meanwhile', async () => {
    const { server, reads } = await lendReads();
    server.pause();
    const bump = reads.bumpAll();
    await reads.unverified();
    await reads.wait();
    server.resume();
    await bump;
    await reads.verify();
  });

  it('a push that is lost with its connection, and pushes that are held for longer than the heartbeat', async () => {
    const server = await privateRedis();
    const [commands, pushes] = [await startProxy(server.port), await startProxy(server.port)];
    const reads = await TrackedCache.open({ url: server.url, commands: commands.url, pushes: pushes.url });
    const dropped = pushes.dropReplies();
    await reads.bumpAll();
    await dropped;
    await reads.wait(HEARTBEAT_MS);
    await reads.settled();
    pushes.holdReplies();
    await reads.bumpAll();
    await reads.wait();
    await reads.unverified();
    pushes.releaseReplies();
    await reads.verify();
    expect(reads.reader.cache.state.local!.tracking!.unverified.heartbeat).to.be.above(0);
  });
});
