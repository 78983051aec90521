import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, notifyRelays } from '../../../lib/knex/index.js';
import { freshnessKey, generationKey, keyPrefix } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { type Env, gencache, serversOf, startGencache } from '../gencache.js';
import { describeCommand, lendInstallation, withRole, withSecondSchema } from '../installation.js';

describeCommand('gencache relay', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    ({ db, env, cache } = await lendInstallation());
  });

  const record = (path: string) => db('gencache_outbox').insert({ cache, path, source: 'item', operation: 'UPDATE' });
  const drained = () => eventually(async () => expect(await db('gencache_outbox')).to.deep.equal([]));

  /** Writes a generation of the scope, and returns a function that reads it. */
  const generationOf = async (path: string, redis = lendRedis()) => {
    const key = generationKey(keyPrefix(cache), path);
    await redis.set(key, `7.${'a'.repeat(16)}`, 'PX', 60_000);
    return () => redis.get(key);
  };

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`bumps and deletes events until ${signal}, and exits with 0`, async () => {
      const item = await generationOf('item=1');
      await record('item=1');
      const relay = startGencache(['relay', '--cache', cache], env);
      await drained();
      expect(await item()).to.match(/^8\./);
      const { code, out, err } = await relay.end(signal);
      expect({ code, out }).to.deep.equal({ code: 0, out: '' });
      expect(err)
        .to.match(/info +\S+: relay \d+ has started\n/)
        .and.match(/info +\S+: relay is stopping\n/);
      expect(err).to.match(
        /info +\S+: lag \d+ ms; 1 events to 1 scopes, 1 since the last report; 1 repairs; 0 dead letters; .*; trusted\n$/,
      );
    });
  }

  it('writes report lines at the interval of --report, and a line for each batch with --verbose', async () => {
    const relay = startGencache(['relay', '--cache', cache, '--report', '50', '--verbose', '--batch', '2'], env);
    await relay.said(/repairs; .*trusted\n[^]*repairs; .*trusted\n/);
    await record('item=1');
    await relay.said(/debug \S+: relayed 1 events to 1 scopes in [\d.]+ ms: 1 item UPDATE\n/);
    await relay.end('SIGTERM');
  });

  it('leaves the events of other caches alone', async () => {
    await db('gencache_outbox').insert({ cache: uniqueName('other'), path: '', source: 'x', operation: 'y' });
    await record('item=1');
    const relay = startGencache(['relay', '--cache', cache], env);
    await eventually(async () => expect(await db('gencache_outbox').where({ cache })).to.deep.equal([]));
    await relay.end('SIGTERM');
    expect(await db('gencache_outbox')).to.have.length(1);
  });

  it('warns of a cache name that the outbox does not know, if it knows others', async () => {
    const alone = startGencache(['relay', '--cache', cache], env);
    expect(await alone.said(/global bumped/)).to.not.include('no trigger');
    const other = uniqueName('other');
    await db('gencache_outbox').insert({ cache: other, path: '', source: 'x', operation: 'y' });
    const misspelt = startGencache(['relay', '--cache', cache], env);
    await misspelt.said(
      new RegExp(
        `warn +${cache}: no trigger and no event has the cache name "${cache}"; this outbox has: ${other}\\. Check that --cache`,
      ),
    );
    const meant = startGencache(['relay', '--cache', other], env);
    expect(await meant.said(/global bumped/)).to.not.include('no trigger');
  });

  it('keeps each bound of --max-staleness', async () => {
    const redis = lendRedis();
    const args = ['relay', '--cache', cache, '--max-staleness', '5000', '--max-staleness', '9000', '--poll', '20'];
    const relay = startGencache(args, env);
    const ttls = () =>
      Promise.all([5_000, 9_000].map((boundMs) => redis.pttl(freshnessKey(keyPrefix(cache), boundMs))));
    await eventually(
      async () => {
        const [five, nine] = await ttls();
        expect(five).to.be.within(1, 5_000);
        expect(nine).to.be.within(5_001, 9_000);
      },
      { withinMs: 15_000 },
    );
    await relay.end('SIGTERM');
  });

  for (const [limit, said] of [
    ['1000', /warn +\S+: global bumped before relaying, .*: backlog\n/],
    ['0', /started\n/],
  ] as const) {
    it(`bumps global before events older than --backlog-max ${limit}${limit === '0' ? ': never' : ''}`, async () => {
      const first = startGencache(['relay', '--cache', cache], env);
      await first.said(/global bumped/);
      await first.end('SIGTERM');
      await record('item=1');
      await db('gencache_outbox').update({ recorded_at: db.raw(`recorded_at - interval '1 hour'`) });
      await db('gencache_authority').update({ changed_at: db.raw(`changed_at - interval '2 hours'`) });
      const relay = startGencache(['relay', '--cache', cache, '--backlog-max', limit], env);
      await relay.said(said);
      await eventually(async () => expect(await db('gencache_outbox').where({ cache })).to.deep.equal([]));
      const { err } = await relay.end('SIGTERM');
      expect(err).to.match(limit === '0' ? /; 0 repairs; / : /; 1 repairs; /);
    });
  }

  it('holds one to three sessions, named gencache-relay', async () => {
    const relay = startGencache(['relay', '--cache', cache], env);
    await relay.said(/global bumped/);
    // A session shows its last statement, which between two polls may be one without a table's name.
    await eventually(async () => {
      const { rows } = await db.raw(
        `select pid from pg_stat_activity where application_name = 'gencache-relay' and query like '%' || ? || '%'`,
        ['gencache_outbox'],
      );
      expect(rows.length).to.be.within(1, 3);
    });
    await relay.end('SIGTERM');
  });

  it('relays from an outbox in the schema of --schema', async () => {
    await withSecondSchema(db, async (schema) => {
      await installOutbox(db, { schema });
      await db.withSchema(schema).table('gencache_outbox').insert({ cache, path: '', source: 'x', operation: 'y' });
      const relay = startGencache(['relay', '--cache', cache, '--schema', schema], env);
      await eventually(async () => expect(await db.withSchema(schema).table('gencache_outbox')).to.deep.equal([]));
      expect((await relay.end('SIGTERM')).code).to.equal(0);
    });
  });

  it('wakes at a hint with --listen', async () => {
    await notifyRelays(db, true);
    const relay = startGencache(['relay', '--cache', cache, '--poll', '3600000', '--listen'], env);
    await relay.said(/global bumped/);
    await eventually(
      async () => {
        const { rows } = await db.raw(`select from pg_stat_activity where query = 'listen gencache'`);
        expect(rows).to.not.deep.equal([]);
      },
      { withinMs: 10_000 },
    );
    await record('item=1');
    await drained();
    expect((await relay.end('SIGTERM')).code).to.equal(0);
  });

  describe('when it can not start', () => {
    it('exits with 1 without an outbox', async () => {
      const { code, err } = await gencache(['relay', '--cache', cache], serversOf(await lendDatabase()));
      expect(err).to.match(/^There is no outbox; a relay needs an outbox of release \d+\. Call `installOutbox`/);
      expect(code).to.equal(1);
    });

    it('exits with 1 for an outbox of an older release', async () => {
      const older = await lendDatabase();
      await installOutbox(older, { release: 1 });
      const { code, err } = await gencache(['relay', '--cache', cache], serversOf(older));
      expect(err).to.match(/^The outbox has release 1; a relay needs an outbox of release \d+\. /);
      expect(code).to.equal(1);
    });

    it('exits with 1 when PostgreSQL is away', async () => {
      const { code, err } = await gencache(['relay', '--cache', cache], {
        ...env,
        DATABASE_URL: 'postgres://postgres@127.0.0.1:1/postgres',
      });
      expect(err).to.equal(
        'gencache relay failed: PostgreSQL is unreachable: connect ECONNREFUSED 127.0.0.1:1. Check DATABASE_URL (or ' +
          '--database), the server and the network.\n',
      );
      expect(code).to.equal(1);
    });

    it('exits with 1 for a role without the rights, and prints the statements that grant them', async () => {
      await withRole({ db, env }, async (role, as) => {
        const refused = await gencache(['relay', '--cache', cache], as);
        expect(refused.err).to.match(
          new RegExp(`^The role ${role} lacks rights that a relay needs: .*SELECT on gencache_release`),
        );
        expect(refused).to.include({ code: 1, out: '' });
        const status = await gencache(['outbox', 'status'], as);
        expect(status.err).to.match(
          new RegExp(
            `^gencache outbox status failed: PostgreSQL refused the role ${role}: permission denied for table `,
          ),
        );
        // The statements of either message suffice.
        await db.raw(/grant.*;/.exec(refused.err)![0]);
        const relay = startGencache(['relay', '--cache', cache], as);
        await relay.said(/global bumped/);
        await relay.end('SIGTERM');
        await db.raw(/grant.*;/.exec(status.err)![0]);
        expect((await gencache(['outbox', 'status'], as)).code).to.equal(0);
      });
    });
  });

  describe('when a server goes away', () => {
    it('continues after PostgreSQL has ended its sessions', async () => {
      const relay = startGencache(['relay', '--cache', cache], {
        ...env,
        DATABASE_URL: `${databaseUrl(schemaOf(db))}&application_name=${cache}`,
      });
      await relay.said(/global bumped/);
      const { rows } = await db.raw(
        'select pg_terminate_backend(pid) as ended from pg_stat_activity where application_name = ?',
        [cache],
      );
      expect(rows).to.not.deep.equal([]);
      await record('item=1');
      await drained();
      expect((await relay.end('SIGTERM')).code).to.equal(0);
    });

    it('bumps global after a restart of Redis, and continues', async () => {
      const server = await privateRedis();
      const relay = startGencache(['relay', '--cache', cache], serversOf(db, server.url));
      await relay.said(/relaying from now on; global bumped/);
      await server.restart();
      await relay.said(/warn +\S+: global bumped, since bumps or commits may have been lost: store\n/);
      const item = await generationOf('item=1', lendRedis({ url: server.url }));
      await record('item=1');
      await drained();
      expect(await item()).to.match(/^8\./);
      expect((await relay.end('SIGTERM')).code).to.equal(0);
    });

    it('waits for a Redis that is away at its start, with one warning', async () => {
      const server = await privateRedis();
      await server.kill('SIGKILL');
      const relay = startGencache(['relay', '--cache', cache, '--report', '100'], serversOf(db, server.url));
      await relay.said(/[3-9] failures, [^]*[3-9] failures, /);
      const said = await relay.said(/ECONNREFUSED/);
      expect(said.match(/store failed: connect ECONNREFUSED/g)).to.have.length(1);
      await record('item=1');
      await server.restart();
      await drained();
      expect((await relay.end('SIGTERM')).code).to.equal(0);
    });

    it('stops within its limit while Redis hangs, and leaves its events to other relays', async () => {
      const server = await privateRedis();
      const relay = startGencache(['relay', '--cache', cache], serversOf(db, server.url));
      await relay.said(/global bumped/);
      server.pause();
      await record('item=1');
      expect((await relay.end('SIGTERM')).code).to.equal(0);
      expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['item=1']);
    });
  });
});
