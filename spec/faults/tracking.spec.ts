/**
 * Faults of Redis and of the network while a process tracks generations. In each of them: no generation that changed is
 * verified for longer than the heartbeat, and with the fault over the generations that stand are verified again.
 */
import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { eventually } from '../support/deferred.js';
import { lendRedis, privateRedis, uniqueName } from '../support/redis.js';
import { startProxy } from '../support/proxy.js';
import { runProgram } from '../support-specs/programs/run.js';
import { lendTracker } from '../support/tracker.js';
import { HEARTBEAT_MS, TrackedReader } from '../support/tracked-reader.js';

/** Longer than the time after which a connection without pushes is left. */
const SILENT_MS = 4_000;

describe('tracked generations', () => {
  /** A server of its own, a writer's client, and a reader that has verified all generations. */
  async function lendReader(
    options: ConstructorParameters<typeof TrackedReader>[2] & { args?: readonly string[] } = {},
  ) {
    const server = await privateRedis({ args: options.args ?? ['--enable-debug-command', 'yes'] });
    const admin = lendRedis({ url: server.url, maxRetriesPerRequest: null });
    const reader = await settled(new TrackedReader(server.url, () => admin, options));
    return { server, admin, reader };
  }

  async function settled(reader: TrackedReader): Promise<TrackedReader> {
    await reader.bumpAll();
    await reader.settled();
    return reader;
  }

  /** As `lendReader`, with a proxy on the way of the pushes alone, and one on the way of the commands. */
  async function lendProxied() {
    const server = await privateRedis();
    const admin = lendRedis({ url: server.url });
    const [commands, pushes] = [await startProxy(server.port), await startProxy(server.port)];
    const reader = await settled(new TrackedReader(commands.url, () => admin, { pushesPort: pushes.port }));
    return { server, admin, commands, pushes, reader };
  }

  const trackingIds = async (admin: Redis) =>
    String(await admin.client('LIST'))
      .split('\n')
      .filter((line) => /flags=\S*t/.test(line))
      .map((line) => /^id=(\d+)/.exec(line)![1]!);

  describe('on a server that fails', () => {
    it('CLIENT KILL of the tracking connection alone, again and again, between bumps', async () => {
      const { admin, reader } = await lendReader();
      for (let round = 0; round < 5; round++) {
        for (const id of await trackingIds(admin)) await admin.call('CLIENT', 'KILL', 'ID', id);
        await reader.bumpAll();
        await reader.settled();
      }
      await reader.verify();
    });

    it('CLIENT TRACKING is turned off under the connection', async () => {
      const { reader } = await lendReader();
      const client = reader.lent.trackingClient;
      await client.unsubscribe();
      await client.call('CLIENT', 'TRACKING', 'OFF');
      await client.subscribe('__redis__:invalidate');
      await reader.bumpThrough();
      await reader.verify();
    });

    it('CLIENT PAUSE, with bumps that wait for its end', async () => {
      const { admin, reader } = await lendReader();
      await admin.call('CLIENT', 'PAUSE', 2 * HEARTBEAT_MS);
      await reader.bumpThrough();
      await reader.verify();
    });

    it('DEBUG SLEEP', async () => {
      const { server, reader } = await lendReader();
      const sleeping = lendRedis({ url: server.url }).call('DEBUG', 'SLEEP', (2 * HEARTBEAT_MS) / 1_000);
      await reader.bumpThrough();
      await sleeping;
      await reader.verify();
    });

    it('SIGSTOP and SIGCONT of the server, with bumps that wait in its sockets', async () => {
      const { server, reader } = await lendReader();
      server.pause();
      const bumps = reader.bumpAll();
      await reader.unverified();
      server.resume();
      await bumps;
      await reader.verify();
    });

    it('FLUSHALL', async () => {
      const { admin, reader } = await lendReader();
      const before = await reader.current();
      await admin.flushall();
      reader.noteOld(before);
      await reader.wait(2 * HEARTBEAT_MS);
      await reader.verify();
    });

    it('SWAPDB, to a database without the generations and back', async () => {
      const { admin, reader } = await lendReader();
      const before = await reader.current();
      await admin.swapdb(0, 3);
      reader.noteOld(before);
      await reader.wait(2 * HEARTBEAT_MS);
      await reader.verify();
    });

    it('kill -9, and a start from an RDB of before the last bumps', async () => {
      const { server, admin, reader } = await lendReader({ args: ['--save', '3600 1', '--dbfilename', 'dump.rdb'] });
      const saved = await reader.current();
      await admin.save();
      await reader.bumpAll();
      await reader.settled();
      const lost = await reader.current();
      await server.kill('SIGKILL');
      await server.restart();
      expect(await reader.current()).to.deep.equal(saved);
      reader.noteOld(lost);
      await reader.wait(HEARTBEAT_MS);
      await reader.verify();
    });

    it('eviction, expiry, RENAME and RESTORE of generations', async () => {
      const { admin, reader } = await lendReader();
      const [evicted, expired, renamed, restored] = reader.keys as [string, string, string, string];
      const before = await reader.current();
      const dump = (await admin.dumpBuffer(evicted)) as unknown as string;
      await admin.del(evicted);
      await admin.pexpire(expired, 1);
      await admin.rename(renamed, `${renamed}x`);
      await admin.restore(restored, 0, dump, 'REPLACE');
      await eventually(async () => expect(await admin.exists(expired)).to.equal(0));
      reader.noteOld(before.slice(1));
      await reader.wait(2 * HEARTBEAT_MS);
      await reader.verify();
    });
  });

  describe('in a process that is stopped', () => {
    it('are unverified for the first question after it goes on, before it reads a push', async () => {
      const server = await privateRedis();
      const admin = lendRedis({ url: server.url });
      const name = uniqueName();
      const bump = async () => {
        const generation = formatGeneration(1, nonce());
        await admin.set(generationKey(keyPrefix(name), 'item=1'), generation);
        return generation;
      };
      let generation = await bump();
      const tracker = runProgram('spec/programs/generation-tracker.ts', [server.url, name, String(HEARTBEAT_MS)]);
      for (let seen = 0; seen < 3;) {
        expect(await tracker.line()).to.equal(`verified ${generation}`);
        tracker.child.kill('SIGSTOP');
        generation = await bump();
        await setTimeout(2 * HEARTBEAT_MS);
        tracker.child.kill('SIGCONT');
        // It may have been stopped between two turns, where it tells nothing of it.
        const line = await tracker.line();
        if (line === `verified ${generation}`) {
          generation = await bump();
          continue;
        }
        expect(line).to.equal('stopped unverified');
        seen++;
      }
    });
  });

  describe('behind a network that fails', () => {
    it('delays all pushes: replies overtake them', async () => {
      const { pushes, reader } = await lendProxied();
      pushes.delayMs = HEARTBEAT_MS / 4;
      for (let round = 0; round < 20; round++) {
        await reader.bumpAll();
        await reader.wait(HEARTBEAT_MS / 8);
      }
      pushes.delayMs = 0;
      await reader.verify();
    });

    it('delays all replies: pushes overtake them', async () => {
      const { commands, reader } = await lendProxied();
      commands.delayMs = HEARTBEAT_MS / 8;
      for (let round = 0; round < 20; round++) {
        await reader.bumpAll();
        await reader.wait(HEARTBEAT_MS / 8);
      }
      commands.delayMs = 0;
      await reader.verify();
    });

    it('holds the pushes for longer than the heartbeat, and then passes them on', async () => {
      const { pushes, reader } = await lendProxied();
      pushes.holdReplies();
      await reader.bumpThrough();
      await reader.unverified();
      pushes.releaseReplies();
      await reader.verify();
    });

    it('drops a push, and with it the connection', async () => {
      const { pushes, reader } = await lendProxied();
      for (let round = 0; round < 3; round++) {
        const dropped = pushes.dropReplies();
        await reader.bumpAll();
        await dropped;
        await reader.settled();
      }
      await reader.verify();
    });

    it('cuts both connections, refuses new ones for a while, and lets bumps through meanwhile', async () => {
      const { commands, pushes, reader } = await lendProxied();
      for (const cut of [[pushes], [commands], [pushes, commands]]) {
        for (const proxy of cut) {
          proxy.refuse();
          proxy.cut();
        }
        await reader.bumpThrough();
        await Promise.all(cut.map((proxy) => proxy.accept()));
        await reader.settled();
      }
      await reader.verify();
    });

    it('leaves the tracking connection half-open: it is left for another one', async () => {
      const { pushes, reader } = await lendProxied();
      pushes.hold();
      await reader.bumpThrough();
      await reader.wait(SILENT_MS);
      pushes.cut();
      pushes.release();
      await reader.verify();
    });

    it('leaves the tracking connection half-open from its beginning: it is left for another one', async () => {
      const { pushes, reader } = await lendProxied();
      pushes.holdsNew = true;
      pushes.cut();
      await reader.bumpThrough();
      await eventually(() => expect(pushes.connections).to.be.above(0));
      pushes.holdsNew = false;
      await reader.verify();
    });

    it('leaves the connection for commands half-open: no beat is sent, and nothing stays verified', async () => {
      const { commands, reader } = await lendProxied();
      commands.hold();
      await reader.bumpThrough();
      await reader.unverified();
      commands.cut();
      commands.release();
      await reader.verify();
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

  describe('with a replica', () => {
    it('that is promoted without the last bump, whose push is lost too', async () => {
      const primary = await privateRedis({ args: ['--repl-diskless-sync-delay', '0'] });
      const replica = await privateRedis();
      const [one, two] = [primary, replica].map(({ url }) => lendRedis({ url }));
      await two!.replicaof('127.0.0.1', primary.port);
      await eventually(async () => expect(await two!.info('replication')).to.contain('master_link_status:up'));
      let writer = one!;
      const pushes = await startProxy(primary.port);
      const reader = await settled(new TrackedReader(primary.url, () => writer, { pushesPort: pushes.port }));
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
      const reader = await settled(new TrackedReader(commands.url, () => admin, { pushesPort: pushes.port }));
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
