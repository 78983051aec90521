/**
 * Faults of PostgreSQL: it restarts, it crashes and loses commits that readers had seen, it ends sessions; a transaction
 * stays open for longer than a thousand others.
 */
import { expect } from 'chai';
import { deferred, eventually } from '../support/deferred.js';
import { lendServers, Scene, type Servers, type WatchedRelay } from './scene.js';
import { PLAIN, STRICT } from './steps.js';

describe('PostgreSQL', () => {
  let servers: Servers;
  let scene: Scene;
  let relay: WatchedRelay;

  before(async () => {
    // Only the WAL writer writes WAL after commits, so a spec that stops it decides which commits a crash loses.
    const settings = { synchronous_commit: 'off', autovacuum: 'off', bgwriter_lru_maxpages: '0' };
    servers = await lendServers({ postgres: { settings } });
  });

  beforeEach(async () => {
    scene = await Scene.open(servers);
    relay = scene.relay();
    scene.reader();
    scene.reader({ bounded: false });
    await scene.settled(relay);
  });

  it('restarts: the relay repairs', async () => {
    await scene.change(1);
    await servers.postgres.restart();
    await scene.change(2);
    await scene.verify(relay);
    expect(relay.repairs).to.include('source');
  });

  it('restarts while a transaction is open: the transaction is lost with its event', async () => {
    const begun = deferred();
    const ended = deferred();
    const change = scene.change(1, () => {
      begun.resolve();
      return ended.promise;
    });
    await begun.promise;
    await servers.postgres.restart();
    ended.resolve();
    expect(await change.catch((error: unknown) => error)).to.be.instanceOf(Error);
    await scene.verify(relay);
    expect((await scene.versions()).get(1)).to.equal(0);
  });

  for (const whom of ['the postmaster', 'one backend']) {
    it(`crashes when ${whom} is killed, and loses commits that readers have cached: the relay repairs`, async () => {
      await scene.change(1);
      await scene.relayed(relay);
      const walWriter = await stopWalWriter();
      const kept = await scene.versions();
      await scene.changeAll();
      await scene.settled(relay);
      for (const item of scene.items) expect(scene.history.seen(item)).to.not.equal(kept.get(item));
      if (whom === 'one backend') process.kill(await backend(), 'SIGKILL');
      else await servers.postgres.kill('SIGKILL');
      process.kill(walWriter, 'SIGKILL');
      if (whom === 'the postmaster') await servers.postgres.restart();
      await eventually(async () => expect(await scene.versions()).to.deep.equal(kept));
      await scene.verify(relay);
      expect(relay.repairs).to.include('source');
    });
  }

  for (const [kind, { COMMIT, ...steps }] of Object.entries({ plain: PLAIN, strict: STRICT })) {
    const strict = kind === 'strict';

    it(`ends the session of a ${kind} writer before COMMIT: nothing has changed`, async () => {
      const writer = await scene.program();
      const stop = writer.stopAt(COMMIT);
      scene.runWriter(writer, 1, { strict });
      await stop.reached;
      await scene.endSessions();
      stop.release();
      expect(await writer.line<{ message: string }>()).to.have.property('message');
      await scene.verify(relay, { strict });
      expect((await scene.versions()).get(1)).to.equal(0);
    });

    it(`ends the sessions of a ${kind} writer after COMMIT: the bump is done, or the relay does it`, async () => {
      const writer = await scene.program();
      const stop = writer.stopAt(strict ? STRICT['reading its events again'] : steps['reading its events']);
      const change = scene.runWriter(writer, 1, { strict });
      await stop.reached;
      change.committedMs = performance.now();
      writer.gates.postgres.cut();
      stop.release();
      expect((await writer.line<{ bump: string }>()).bump).to.be.oneOf(['done', 'pending']);
      await scene.verify(relay, { strict, hit: !strict });
      expect((await scene.versions()).get(1)).to.equal(change.version);
    });
  }

  it('keeps a transaction open for longer than a thousand others: the relay bumps its change', async () => {
    const begun = deferred();
    const ended = deferred();
    const long = scene.change(1, () => {
      begun.resolve();
      return ended.promise;
    });
    await begun.promise;
    await scene.changeOften(2, 1_000);
    await scene.relayed(relay);
    ended.resolve();
    const { version } = await long;
    await scene.verify(relay);
    expect((await scene.versions()).get(1)).to.equal(version);
  });

  /** Writes the commits so far, and stops the WAL writer: later commits stay in memory until a session waits for one. */
  async function stopWalWriter(): Promise<number> {
    const { rows } = await scene.db.raw<{ rows: { pid: number }[] }>(
      `select pid from pg_stat_activity where backend_type = 'walwriter'`,
    );
    process.kill(rows[0]!.pid, 'SIGSTOP');
    await scene.db.raw('checkpoint');
    return rows[0]!.pid;
  }

  async function backend(): Promise<number> {
    const { rows } = await scene.db.raw<{ rows: { pid: number }[] }>('select pg_backend_pid() as pid');
    return rows[0]!.pid;
  }
});
