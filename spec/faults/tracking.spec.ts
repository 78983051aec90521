/**
 * Faults of Redis and of the network while a process answers reads without a round trip (`local`, `mode: 'track'`). In each
 * of them: no read that begins later than one heartbeat after a bump has returned answers what that bump made old, and with
 * the fault over the process answers by itself again.
 */
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { eventually } from '../support/deferred.js';
import { lendRedis, privateRedis } from '../support/redis.js';
import { type Proxy, startProxy } from '../support/proxy.js';
import { TrackedCache } from '../support/tracked-cache.js';
import { HEARTBEAT_MS } from '../support/tracked-process.js';
import { lendTracker } from '../support/tracker.js';
import { TrackedReader } from '../support/tracked-reader.js';

/** Longer than the time after which a connection without pushes is left. */
const SILENT_MS = 4_000;

describe('reads without a round trip', () => {
  /** A server of its own, a client of it, and a process that answers all items by itself. */
  async function lendReads(args: readonly string[] = ['--enable-debug-command', 'yes']) {
    const server = await privateRedis({ args });
    const admin = lendRedis({ url: server.url, maxRetriesPerRequest: null });
    return { server, admin, reads: await TrackedCache.open({ url: server.url }) };
  }

  /** As `lendReads`, with a proxy on the way of the pushes alone, and one on the way of the commands. */
  async function lendProxied() {
    const { url, port } = await privateRedis();
    const [commands, pushes] = [await startProxy(port), await startProxy(port)];
    const reads = await TrackedCache.open({ url, reader: { url: commands.url }, pushesPort: pushes.port });
    return { admin: lendRedis({ url }), commands, pushes, reads };
  }

  const trackingIds = async (admin: Redis) =>
    String(await admin.client('LIST'))
      .split('\n')
      .filter((line) => /flags=\S*t/.test(line))
      .map((line) => /^id=(\d+)/.exec(line)![1]!);

  describe('on a server that fails', () => {
    it('CLIENT KILL of the tracking connection alone, again and again, between bumps', async () => {
      const { admin, reads } = await lendReads();
      for (let round = 0; round < 5; round++) {
        for (const id of await trackingIds(admin)) await admin.call('CLIENT', 'KILL', 'ID', id);
        await reads.bumpAll();
        await reads.settled();
      }
      await reads.verify();
    });

    it('CLIENT TRACKING is turned off under the connection', async () => {
      const { reads } = await lendReads();
      const client = reads.trackingClient;
      await client.unsubscribe();
      await client.call('CLIENT', 'TRACKING', 'OFF');
      await client.subscribe('__redis__:invalidate');
      await reads.bumpThrough();
      await reads.verify();
    });

    it('CLIENT PAUSE, with bumps that wait for its end', async () => {
      const { admin, reads } = await lendReads();
      await admin.call('CLIENT', 'PAUSE', 2 * HEARTBEAT_MS);
      await reads.bumpThrough();
      await reads.verify();
    });

    it('DEBUG SLEEP', async () => {
      const { server, reads } = await lendReads();
      const sleeping = lendRedis({ url: server.url }).call('DEBUG', 'SLEEP', (2 * HEARTBEAT_MS) / 1_000);
      await reads.bumpThrough();
      await sleeping;
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

    it('FLUSHALL, in place of a bump', async () => {
      const { admin, reads } = await lendReads();
      for (let round = 0; round < 3; round++) {
        await reads.change(() => admin.flushall());
        await reads.wait(HEARTBEAT_MS);
        await reads.settled();
      }
      await reads.verify();
    });

    it('SWAPDB, to a database without the generations', async () => {
      const { admin, reads } = await lendReads();
      await reads.change(() => admin.swapdb(0, 3));
      await reads.wait();
      await reads.verify();
    });

    it('kill -9, and a start from an RDB of before the last bump', async () => {
      const { server, admin, reads } = await lendReads(['--save', '3600 1', '--dbfilename', 'dump.rdb']);
      const saved = reads.versions;
      await admin.save();
      await reads.bumpAll();
      await reads.settled();
      await server.kill('SIGKILL');
      await reads.unverified();
      reads.wentBackTo(saved);
      await server.restart();
      await reads.bumpThrough();
      await reads.verify();
    });

    it('eviction, expiry, RENAME and RESTORE of generations, in place of a bump', async () => {
      const { admin, reads } = await lendReads();
      const [evicted, expired, renamed, restored] = reads.keys as [string, string, string, string];
      await reads.change(async () => {
        await admin.set('another', formatGeneration(1, nonce()));
        const dump = (await admin.dumpBuffer('another')) as unknown as string;
        const before = await admin.get(expired);
        await admin.del(evicted);
        await admin.pexpire(expired, 1);
        await admin.rename(renamed, `${renamed}x`);
        await admin.restore(restored, 0, dump, 'REPLACE');
        await eventually(async () => expect(await admin.get(expired)).to.not.equal(before));
      });
      await reads.wait();
      await reads.verify();
    });
  });

  describe('behind a network that fails', () => {
    it('delays all pushes: replies overtake them', async () => {
      const { pushes, reads } = await lendProxied();
      pushes.delayMs = HEARTBEAT_MS / 4;
      for (let round = 0; round < 20; round++) {
        await reads.bumpAll();
        await reads.wait(HEARTBEAT_MS / 8);
      }
      pushes.delayMs = 0;
      await reads.verify();
    });

    it('delays all replies: pushes overtake them', async () => {
      const { admin, commands, reads } = await lendProxied();
      commands.delayMs = HEARTBEAT_MS / 8;
      for (let round = 0; round < 3; round++) {
        // A push without another generation makes the reader ask; the bump finds the reply on its way.
        for (const key of reads.keys) await admin.pexpire(key, 600_000);
        await reads.wait(HEARTBEAT_MS / 16);
        await reads.bumpThrough();
      }
      commands.delayMs = 0;
      await reads.verify();
    });

    it('holds the pushes for longer than the heartbeat, and then passes them on', async () => {
      const { pushes, reads } = await lendProxied();
      pushes.holdReplies();
      await reads.bumpThrough();
      await reads.unverified();
      pushes.releaseReplies();
      await reads.verify();
      expect(reads.reader.cache.state.local!.tracking!.unverified.heartbeat).to.be.above(0);
    });

    it('drops a push, or cuts it in two, and with it the connection', async () => {
      const { pushes, reads } = await lendProxied();
      for (let round = 0; round < 4; round++) {
        const dropped = pushes.dropReplies({ half: round % 2 === 0 });
        await reads.bumpAll();
        await dropped;
        await reads.wait(HEARTBEAT_MS);
        await reads.settled();
      }
      await reads.verify();
    });

    it('cuts a reply in two, and with it the connection for commands', async () => {
      const { commands, reads } = await lendProxied();
      for (let round = 0; round < 3; round++) {
        const dropped = commands.dropReplies({ half: true });
        await reads.bumpAll();
        await dropped;
        await reads.settled();
      }
      await reads.verify();
    });

    it('cuts both connections, refuses new ones for a while, and lets bumps through meanwhile', async () => {
      const { commands, pushes, reads } = await lendProxied();
      for (const cut of [[pushes], [commands], [pushes, commands]]) {
        for (const proxy of cut) {
          proxy.refuse();
          proxy.cut();
        }
        await reads.bumpThrough();
        await Promise.all(cut.map((proxy) => proxy.accept()));
        await reads.settled();
      }
      await reads.verify();
    });

    it('leaves the tracking connection half-open: it is left for another one', async () => {
      const { pushes, reads } = await lendProxied();
      pushes.hold();
      await reads.bumpThrough();
      await reads.wait(SILENT_MS);
      pushes.cut();
      pushes.release();
      await reads.verify();
    });

    it('leaves the tracking connection half-open from its beginning: it is left for another one', async () => {
      const { pushes, reads } = await lendProxied();
      pushes.holdsNew = true;
      pushes.cut();
      await reads.bumpThrough();
      await eventually(() => expect(pushes.connections).to.be.above(0));
      pushes.holdsNew = false;
      await reads.verify();
    });

    it('leaves the connection for commands half-open: no beat is sent, and nothing stays verified', async () => {
      const { commands, reads } = await lendProxied();
      commands.hold();
      await reads.bumpThrough();
      await reads.unverified();
      commands.cut();
      commands.release();
      await reads.verify();
    });
  });

  it('are none behind a proxy that confirms CLIENT TRACKING and pushes nothing: it counts as a refusal', async () => {
    const server = await privateRedis();
    const { url } = await startProxy(server.port, {
      host: ([, subcommand]) => (subcommand === 'TRACKING' ? { reply: '+OK\r\n' } : undefined),
    });
    const { errors, asked, count } = lendTracker(url);
    await eventually(() => expect(errors()).to.have.length(1));
    expect(errors()[0]).to.contain('pushed no change');
    expect(count('beat')).to.equal(0);
    await asked.minted();
  });

  it('begin on a further connection if the first one was lost before CLIENT TRACKING could name it: that is no refusal', async () => {
    const server = await privateRedis();
    let lost = 0;
    const { url } = await startProxy(server.port, {
      host: ([, subcommand]) =>
        subcommand === 'TRACKING' && lost++ === 0
          ? { reply: '-ERR The client ID you want redirect to does not exist\r\n' }
          : undefined,
    });
    const tracker = lendTracker(url);
    await tracker.beats();
    expect(tracker.errors()).to.deep.equal([]);
    expect(lost).to.equal(2);
  });

  describe('with a replica', () => {
    /** A process that has verified all generations. */
    async function lendReader(url: string, writer: () => Redis, pushes: Proxy): Promise<TrackedReader> {
      const reader = new TrackedReader(url, writer, { pushesPort: pushes.port });
      await reader.bumpAll();
      await reader.settled();
      return reader;
    }

    it('that is promoted without the last bump, whose push is lost too', async () => {
      const primary = await privateRedis({ args: ['--repl-diskless-sync-delay', '0'] });
      const replica = await privateRedis();
      const [one, two] = [primary, replica].map(({ url }) => lendRedis({ url }));
      await two!.replicaof('127.0.0.1', primary.port);
      await eventually(async () => expect(await two!.info('replication')).to.contain('master_link_status:up'));
      let writer = one!;
      const pushes = await startProxy(primary.port);
      const reader = await lendReader(primary.url, () => writer, pushes);
      const kept = await reader.current();
      await eventually(async () => expect(await two!.mget(reader.keys)).to.deep.equal(kept));

      // The bump reaches neither the replica nor the reader.
      await two!.call('REPLICAOF', 'NO', 'ONE');
      pushes.holdReplies();
      await reader.bumpAll();
      reader.noteOld(await reader.current());
      reader.lent.client.options.port = replica.port;
      await primary.kill('SIGKILL');
      writer = two!;
      pushes.cut();
      await eventually(async () => {
        const server = /run_id:(\w+)/.exec(await two!.info('server'))![1]!;
        expect(reader.lent.store.incarnation).to.match(new RegExp(`^${server}`));
      });
      await reader.settled();
      expect(await reader.current()).to.deep.equal(kept);
      await reader.verify();
    });

    it('to which only the connection for commands leads: nothing is verified until both lead to one server', async () => {
      const [here, there] = [await privateRedis(), await privateRedis()];
      const admin = lendRedis({ url: here.url });
      const [commands, pushes] = [await startProxy(here.port), await startProxy(here.port)];
      const reader = await lendReader(commands.url, () => admin, pushes);
      const { client, told, store } = reader.lent;
      const before = store.incarnation;
      client.options.port = there.port;
      commands.refuse();
      commands.cut();
      await eventually(() => expect(store.incarnation).to.not.equal(undefined).and.not.to.equal(before));
      reader.noteOld(await reader.current());
      await reader.unverified();
      pushes.cut();
      await eventually(() => expect(told).to.deep.include({ kind: 'reset', incarnation: store.incarnation }));
      expect(reader.violations).to.deep.equal([]);
    });
  });
});
