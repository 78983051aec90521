import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/index.js';
import { installMigrationsTrigger } from '../../../lib/knex/migrations/migrations-trigger.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { generationKey, keyPrefix, markKey } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf, privatePostgres } from '../../support/postgres.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { type Env, gencache, serversOf, startGencache } from '../gencache.js';

interface Diagnosis {
  readonly cache: string;
  readonly ok: boolean;
  readonly expected: string | null;
  readonly reached: boolean;
  readonly step: string;
  readonly promise: string;
  readonly boundsMs: number[];
  readonly strict: boolean;
  readonly notCovered: string[];
  readonly next: string;
  readonly findings: { status: string; check: string; message: string; remedy?: string }[];
}

describe('gencache doctor', function () {
  this.timeout(60_000);
  let db: Knex;
  let env: Env;
  let cache: string;

  const begin = async () => {
    db = await lendDatabase();
    env = serversOf(db);
    cache = uniqueName();
  };

  beforeEach(begin);

  /**
   * A spec of an installation that no relay renews the mark of. That is seen by waiting for 3 s, so those of a suite are
   * looked at at once, each in the state that `arrange` left it in; what it returns, the doctor is called with.
   */
  function itSees(
    title: string,
    arrange: () => Promise<{ args?: readonly string[]; servers?: Env } | void>,
    check: (diagnosis: Diagnosis & { code: number | null }, cache: string) => void,
  ): void {
    let looking: ReturnType<typeof diagnosed>;
    let lookedAt: string;
    before(async () => {
      await begin();
      const { args, servers } = (await arrange()) ?? {};
      lookedAt = cache;
      looking = diagnosed(args, servers);
      looking.catch(() => {});
    });
    it(title, async () => check(await looking, lookedAt));
  }

  async function diagnosed(
    args: readonly string[] = [],
    servers: Env = env,
  ): Promise<Diagnosis & { code: number | null }> {
    const { code, out, err } = await gencache(['doctor', '--cache', cache, '--json', ...args], servers);
    expect(err).to.equal('');
    const diagnosis = JSON.parse(out) as Diagnosis;
    expect(code).to.equal(diagnosis.ok ? 0 : 1);
    for (const { status, remedy } of diagnosis.findings) expect(remedy === undefined).to.equal(status === 'ok');
    return { ...diagnosis, code };
  }

  /** What was found on these, and how bad it is. */
  const found = ({ findings }: Diagnosis, check: string) =>
    findings.filter((finding) => finding.check === check).map(({ status, message }) => `${status}: ${message}`);

  const brokenOf = ({ findings }: Diagnosis) =>
    findings.filter(({ status }) => status === 'broken').map(({ check }) => check);

  /** A table that is watched, and a list of migrations that is, too. */
  async function installTriggers(): Promise<void> {
    await db.raw('create table item (id int primary key) partition by range (id)');
    await db.raw('create table item_1 partition of item for values from (0) to (10)');
    await onChangeOf(db, 'item', { cache }).bump({ item: 'id' }).install();
    await createMigrations();
    await installMigrationsTrigger(db, { cache });
  }

  async function createMigrations(): Promise<void> {
    await db.raw(
      'create table knex_migrations (id serial primary key, name text, batch int, migration_time timestamptz)',
    );
  }

  async function relaying(maxStalenessMs: readonly number[] = [], url?: string) {
    const relay = lendRelay({ db, cache, maxStalenessMs, pollMs: 20, ...(url !== undefined && { url }) });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    return relay;
  }

  describe('when nothing is installed', () => {
    it('names step 0 or 1, and what to do next', async () => {
      const { code, out } = await gencache(['doctor', '--cache', cache], env);
      expect(out).to.match(/ok +PostgreSQL +\d+\.\d+.*, a primary\n/);
      expect(out).to.match(
        /warn +outbox +there is none: changes are not recorded\n +-> For step 2, call `installOutbox`/,
      );
      expect(out).to.match(/Not covered: whoever writes without a bump/);
      expect(out).to.match(
        /\nNext: Install the outbox .*\nStep 0 or 1: anything can still be read, for a TTL; .*\.\n$/,
      );
      expect(code).to.equal(0);
    });

    it('exits with 1 if more is expected', async () => {
      const [zero, one] = await Promise.all([diagnosed(['--expect', '0']), diagnosed(['--expect', '1'])]);
      expect(zero).to.include({ step: '0', code: 0, expected: '0' });
      expect(one).to.include({ step: '0', code: 1, expected: '1', reached: false });
    });
  });

  describe('when there is an outbox', () => {
    beforeEach(() => installOutbox(db));

    it('and a relay but no triggers, names step 2, and who is not covered', async () => {
      await createMigrations();
      await relaying();
      const [diagnosis, more] = await Promise.all([diagnosed(['--expect', '2']), diagnosed(['--expect', '3'])]);
      expect(diagnosis).to.include({ step: '2', code: 0 });
      expect(found(diagnosis, 'relay')).to.deep.equal(['ok: one is alive']);
      expect(found(diagnosis, 'incarnation')).to.deep.equal(['ok: the servers are those that count']);
      expect(found(diagnosis, 'triggers')).to.deep.equal(['warn: none: writers that do not bump are not noticed']);
      expect(found(diagnosis, 'migrations')[0]).to.match(
        /^warn: those in \S+\.knex_migrations are recorded by Knex's hooks at most/,
      );
      expect(diagnosis.notCovered.join()).to.match(/raw SQL, psql, other programs, migrations$/);
      expect(more.code).to.equal(1);
    });

    it('of an older release, says that this is broken', async () => {
      const older = await lendDatabase();
      await installOutbox(older, { release: 1 });
      const diagnosis = await diagnosed([], serversOf(older));
      expect(found(diagnosis, 'outbox')[0]).to.match(/^broken: release 1; relays want \d+$/);
      expect(diagnosis.code).to.equal(1);
    });

    it('that this role may not use, names the rights it lacks', async () => {
      const role = uniqueName('role');
      await db.raw('create role ??', [role]);
      try {
        await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
        await db.raw('grant select on all tables in schema ?? to ??', [schemaOf(db), role]);
        await db.raw('grant insert, delete on gencache_outbox to ??', [role]);
        const as = { ...env, DATABASE_URL: databaseUrl(`${schemaOf(db)} -c role=${role}`) };
        await relaying(); // as its owner
        const diagnosis = await diagnosed([], as);
        expect(found(diagnosis, 'rights')).to.deep.equal([
          `broken: ${role} may not: INSERT, UPDATE on gencache_authority; INSERT on gencache_boot; INSERT on gencache_dead_letter; UPDATE on gencache_outbox`,
        ]);
        const at = `"${schemaOf(db)}".gencache`;
        const remedy = diagnosis.findings.find(({ check }) => check === 'rights')!.remedy!;
        expect(remedy).to.equal(
          `As their owner: grant insert, update on ${at}_authority to "${role}"; grant insert on ${at}_boot to "${role}"; ` +
            `grant insert on ${at}_dead_letter to "${role}"; grant update on ${at}_outbox to "${role}"; ` +
            'Or run the doctor as the role that relays.',
        );
        await db.raw(/grant.*;/.exec(remedy)![0]);
        expect(found(await diagnosed([], as), 'rights')).to.deep.equal([]);
        await db.raw('revoke select on gencache_outbox from ??', [role]);
        const blind = await diagnosed([], as);
        expect(found(blind, 'outbox').at(-1)).to.match(
          /^broken: \S+ can't read it: permission denied for table gencache_outbox$/,
        );
        expect(blind.step).to.equal('unknown');
      } finally {
        await db.raw('drop owned by ?? cascade', [role]);
        await db.raw('drop role ??', [role]);
      }
    });

    it('with events set aside, says so and what was done for them', async () => {
      await db.raw(
        `insert into gencache_dead_letter (cache, xid, seq, path, source, operation, application, recorded_at, bumped, reason)
         values (?, '3', 1, '!', 'item', 'UPDATE', '', now(), '', 'Its path is none.')`,
        [cache],
      );
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'dead letters')).to.deep.equal([
        'warn: events that no relay understood: 1; the scope above each was bumped instead',
      ]);
      expect(diagnosis.code).to.equal(0);
    });
  });

  describe('when no relay is alive', () => {
    itSees(
      'and there is an outbox, names step 1: what a crash leaves stays',
      () => installOutbox(db),
      (diagnosis) => {
        expect(diagnosis).to.include({ step: '1', code: 0 });
        expect(found(diagnosis, 'relay')).to.deep.equal([
          'warn: none has ever run: what a crash leaves in the outbox stays there',
        ]);
        expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
        expect(diagnosis.next).to.match(/^Run `gencache relay --cache /);
      },
    );

    itSees(
      'and events wait, says that this is broken',
      async () => {
        await installOutbox(db);
        await db('gencache_outbox').insert({ cache, path: '', source: 'item', operation: 'UPDATE' });
      },
      (diagnosis) => {
        expect(diagnosis).to.include({ step: '1', code: 1 });
        expect(found(diagnosis, 'lag')[0]).to.match(
          /^broken: events that wait: 1, the oldest for \d+ ms, and nobody bumps them$/,
        );
      },
    );

    itSees(
      'and the outbox knows other caches alone, asks whether the name is right',
      async () => {
        await installOutbox(db);
        await db.raw('create table item (id int primary key)');
        await onChangeOf(db, 'item', { cache: 'shop' }).bump({ item: 'id' }).install();
        await db('gencache_outbox').insert({ cache: 'works', path: '', source: 'item', operation: 'UPDATE' });
      },
      (diagnosis, cache) => {
        expect(found(diagnosis, 'cache')).to.deep.equal([
          `warn: no trigger and no event here has the name ${cache}; there are shop, works`,
        ]);
        expect(diagnosis.next).to.match(/^See whether --cache is the `name` of the GenerationalCache\./);
        expect(diagnosis.findings.find(({ check }) => check === 'relay')!.remedy).to.not.include('gencache relay');
      },
    );

    itSees(
      'and the outbox knows other relays alone, does not',
      async () => {
        await installOutbox(db);
        await db('gencache_authority').insert({ cache: 'shop', redis: 'x', postgres: 'y' });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'cache')).to.deep.equal([]);
        expect(diagnosis.next).to.match(/^Run `gencache relay/);
      },
    );

    itSees(
      'and a dead migration holds events, says how to unlock',
      async () => {
        await installOutbox(db);
        const held = { cache, path: '', source: 'm', operation: 'migration', held_by: 'knex_migrations_lock' };
        await db('gencache_outbox').insert({ ...held, recorded_at: db.raw(`now() - interval '2 hours'`) });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'migration')[0]).to.match(/^warn: events held by a migration's lock: 1, for 120 min; /);
        expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
      },
    );

    itSees(
      'and the mark of the last one is gone, says that it is not known since when',
      async () => {
        await installOutbox(db);
        const relay = await relaying();
        await relay.stop();
        await lendRedis().del(markKey(keyPrefix(cache)));
      },
      (diagnosis) =>
        expect(found(diagnosis, 'relay')).to.deep.equal(['broken: none is alive: it is not known since when']),
    );

    itSees(
      'on this Redis, but on another one, says so',
      async () => {
        await installOutbox(db);
        await relaying();
        return { servers: serversOf(db, (await privateRedis()).url) };
      },
      (diagnosis) => {
        expect(found(diagnosis, 'incarnation')[0]).to.match(
          /^broken: the relay bumps \w{8}\.\w{8}, and this Redis is \w{8}\.\w{8}$/,
        );
        expect(diagnosis).to.include({ step: 'unknown', code: 1 });
        expect([...found(diagnosis, 'lag'), ...found(diagnosis, 'bound')]).to.deep.equal(['ok: no event waits']);
        expect(diagnosis.next).to.match(
          /^See whether REDIS_URL \(or --redis\) is the server that caches and relays use\./,
        );
        expect(diagnosis.notCovered).to.deep.equal([]);
      },
    );

    itSees(
      'nor ever was, and triggers record, says that this is not bumped',
      async () => {
        await installOutbox(db);
        await installTriggers();
      },
      (diagnosis) => {
        expect(found(diagnosis, 'relay')).to.deep.equal([
          'broken: none has ever run: what triggers record is not bumped',
        ]);
        expect(diagnosis).to.include({ step: '1', code: 1 });
      },
    );

    itSees(
      'but one was, says since when',
      async () => {
        await installOutbox(db);
        await installTriggers();
        const relay = await relaying([60_000]);
        await relay.stop();
        await db('item').insert({ id: 1 });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'relay')[0]).to.match(/^broken: none is alive: silent for \d+ s$/);
        expect(found(diagnosis, 'lag')[0]).to.match(/nobody bumps them$/);
        expect(diagnosis).to.include({ step: '1', code: 1 });
        expect(diagnosis.boundsMs).to.deep.equal([]);
        expect(diagnosis.notCovered).to.deep.equal([
          'whoever writes without a bump: triggers record it, and it waits for a relay',
        ]);
        expect(found(diagnosis, 'bound')).to.deep.equal([
          'broken: nobody vouches any more for 60000 ms: when its key has expired, a cache with that `maxStalenessMs` reads the source, and the database carries that load',
        ]);
      },
    );

    itSees(
      'since it was killed, says that caches with a bound read the source',
      async () => {
        await installOutbox(db);
        const relay = startGencache(['relay', '--cache', cache, '--max-staleness', '200'], env);
        await relay.said(/global bumped/);
        await relay.end('SIGKILL');
      },
      (diagnosis) => {
        expect(found(diagnosis, 'bound')).to.deep.equal([
          'broken: nobody vouches for one: a cache with `maxStalenessMs` reads the source, and the database carries that load',
        ]);
        expect(diagnosis.promise).to.match(/; caches with `maxStalenessMs` read the source$/);
        expect(diagnosis).to.include({ step: '1', code: 1 });
      },
    );
  });

  describe('when there are triggers', () => {
    beforeEach(async () => {
      await installOutbox(db);
      await installTriggers();
    });

    it('and a relay, names step 3, its lag, and what triggers do not see', async () => {
      await db.raw('create table report (id int)');
      await relaying();
      const [{ code, out }, more] = await Promise.all([
        gencache(['doctor', '--cache', cache, '--expect', '3'], env),
        diagnosed(['--expect', '4']),
      ]);
      const schema = schemaOf(db);
      expect(out)
        .to.include(`sound on ${schema}.item\n`)
        .and.include(`those in ${schema}.knex_migrations are recorded\n`);
      expect(out).to.include(`Not covered: tables without triggers, should an entry read them: ${schema}.report.\n`);
      expect(out).to.include('\nExpected: step 3, met.\n').and.not.include('broken');
      expect(out).to.include(
        '\nStep 4b: commits may be strict, `transaction(..., { strict: true })`; this Redis evicts ',
      );
      expect(out).to.match(
        /\nStep 3: what committed within the relay's lag \(\d+ ms now\) can still be read, and after a Redis /,
      );
      expect(code).to.equal(0);
      expect(more).to.include({ code: 1, reached: false });
    });

    it('for another name than that of the relay, says so, as long as no cache has that name either', async () => {
      const meant = cache;
      cache = uniqueName('typo');
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'cache')).to.deep.equal([
        `warn: no trigger and no event here has the name ${cache}; there are ${meant}`,
      ]);
      expect(diagnosis.next).to.match(/^See whether --cache is the `name` of the GenerationalCache\./);
      // What a cache leaves in Redis that has been read, and whose writers all bump by hand.
      await lendRedis().set(generationKey(keyPrefix(cache), ''), `0.${'a'.repeat(16)}`, 'PX', 60_000);
      const used = await diagnosed();
      expect(found(used, 'cache')).to.deep.equal([]);
      expect(used.next).to.match(/^Install triggers/);
    });

    it('and a relay that vouches for a bound, names step 4a with that bound', async () => {
      await relaying([5_000, 4_321]);
      const [diagnosis, named, missing, strict] = await Promise.all([
        diagnosed(['--expect', '4a']),
        diagnosed(['--max-staleness', '4321', '--max-staleness', '5000']),
        diagnosed(['--max-staleness', '777']),
        diagnosed(['--expect', '4b']),
      ]);
      expect(diagnosis).to.include({ step: '4a', code: 0, strict: true });
      expect(diagnosis.boundsMs).to.deep.equal([5_000]);
      expect(diagnosis.promise).to.match(
        /^nothing older than 5000 ms can be read by caches with that `maxStalenessMs`/,
      );
      expect(named.boundsMs).to.deep.equal([4_321, 5_000]);
      expect(found(missing, 'bound')).to.deep.equal(['broken: nobody vouches for 777 ms']);
      expect(missing).to.include({ step: '3', code: 1 });
      expect(strict.code).to.equal(0);
    });

    it('one of them disabled, names it, and step 2', async () => {
      await relaying([5_000]);
      await db.raw('alter table item_1 disable trigger all');
      const diagnosis = await diagnosed();
      expect(new Set(brokenOf(diagnosis))).to.deep.equal(new Set(['triggers']));
      expect(found(diagnosis, 'triggers').join()).to.match(/item_1.* is DISABLED/);
      expect(diagnosis).to.include({ step: '2', code: 1 });
      expect(diagnosis.next).to.include('gencache triggers repair');
      const { out } = await gencache(['doctor', '--cache', cache, '--expect', '2'], env);
      expect(out).to.include('\nExpected: step 2, met, but see what is broken above.\n');
      expect(out).to.include('\nStep 4b is not reached: from step 3 on commits may be strict');
      const more = await gencache(['doctor', '--cache', cache, '--expect', '3'], env);
      expect(more.out).to.include('\nExpected: step 3, not met.\n');
    });

    it('and a new partition without one, names it', async () => {
      await relaying();
      await db.raw('create table item_2 partition of item for values from (10) to (20)');
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'triggers').join()).to.match(/item_2" lacks /);
      expect(diagnosis).to.include({ step: '2', code: 1 });
    });

    it('but none on the list of migrations, stays at step 2', async () => {
      await relaying();
      await db.raw('alter table knex_migrations disable trigger all');
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'migrations')[0]).to.match(/^warn: /);
      expect(diagnosis).to.include({ step: '2', code: 0 });
      expect(diagnosis.next).to.include('installMigrationsTrigger');
    });

    it('and events are switched off, says where', async () => {
      await relaying();
      const off = { ...env, DATABASE_URL: databaseUrl(`${schemaOf(db)} -c gencache.events=off`) };
      const diagnosis = await diagnosed([], off);
      expect(found(diagnosis, 'events')).to.deep.equal([
        'broken: gencache.events is off here: no change is recorded there',
      ]);
      expect(diagnosis.step).to.equal('2');
      const role = uniqueName('role');
      await db.raw('create role ??', [role]);
      try {
        await db.raw(`alter role ?? set gencache.events = 'off'`, [role]);
        expect(found(await diagnosed(), 'events')[0]).to.include(
          `gencache.events is off for ${role} in every database`,
        );
      } finally {
        await db.raw('drop role ??', [role]);
      }
    });
  });

  it('asks for row-level triggers on a table that a subscription writes to', async () => {
    // A server of its own, since subscriptions are the whole cluster's, and only its superuser makes them.
    const server = await privatePostgres();
    db = knex({ client: 'pg', connection: server.url });
    lend({ what: 'its Knex', close: () => db.destroy() });
    await installOutbox(db);
    await installTriggers();
    // Made without a connection to its publisher, it knows no tables yet.
    await db.raw(`create subscription s connection 'host=127.0.0.1 port=1' publication p with (connect = false)`);
    await db.raw(`
      insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
      select oid, 'item_1'::regclass, 'r' from pg_subscription`);
    await relaying();
    const diagnosis = await diagnosed([], { ...env, DATABASE_URL: server.url });
    expect(found(diagnosis, 'triggers').at(-1)).to.equal(
      'broken: public.item is written by logical replication, for which statement triggers do not fire',
    );
    await onChangeOf(db, 'item', { cache, subscriber: true }).bump({ item: 'id' }).install();
    const mended = await diagnosed([], { ...env, DATABASE_URL: server.url });
    expect(found(mended, 'triggers')).to.deep.equal(['ok: sound on public.item']);
  });

  describe('when it looks at Redis', () => {
    it('that evicts, says what that costs', async () => {
      const server = await privateRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'] });
      db = await lendOutbox();
      await relaying([], server.url);
      const servers = serversOf(db, server.url);
      const [diagnosis, strict] = await Promise.all([diagnosed([], servers), diagnosed(['--expect', '4b'], servers)]);
      expect(found(diagnosis, 'Redis memory')[0]).to.match(
        /^warn: maxmemory 100.00M, allkeys-lru, 0 keys evicted: .* a commit whose quarantine/,
      );
      expect(diagnosis).to.include({ strict: false, step: '2', code: 0 });
      expect(strict.code).to.equal(1);
    });

    it('that has replicas and an append-only file, says what it can lose', async () => {
      const server = await privateRedis({ args: ['--appendonly', 'yes'] });
      const replica = await privateRedis({ args: ['--replicaof', `127.0.0.1 ${server.port}`] });
      const client = lendRedis({ url: server.url });
      await eventually(async () => expect(await client.info('replication')).to.include('connected_slaves:1'));
      const [diagnosis, wrong] = await Promise.all(
        [server, replica].map(({ url }) => diagnosed([], serversOf(db, url))) as [
          ReturnType<typeof diagnosed>,
          ReturnType<typeof diagnosed>,
        ],
      );
      expect(found(diagnosis, 'Redis past')).to.deep.equal([
        'ok: keeps an append-only file: a restart may have lost the last bumps; 1 replicas: one that is promoted may have missed bumps',
      ]);
      expect(found(wrong, 'Redis')[0]).to.match(/^broken: .*, a replica: it may be behind/);
      expect(wrong.code).to.equal(1);
    });

    it('that does not let its user see INFO, says that no relay can work', async () => {
      const server = await privateRedis();
      await lendRedis({ url: server.url }).acl('SETUSER', 'blind', 'on', '>secret', '~*', '+@all', '-info');
      const diagnosis = await diagnosed([], serversOf(db, server.url.replace('//', '//blind:secret@')));
      expect(found(diagnosis, 'Redis')[0]).to.match(/^broken: its user may not see INFO: NOPERM/);
    });

    it('that has no maxmemory, says what the cache says of that', async () => {
      const diagnosis = await diagnosed([], serversOf(db, (await privateRedis()).url));
      expect(found(diagnosis, 'Redis memory')).to.deep.equal([
        'ok: no maxmemory: orphans and entries stay until their TTL, and nothing is evicted (noeviction)',
      ]);
    });

    it('that is away, names no step, and tells the rest all the same', async () => {
      await installOutbox(db);
      await installTriggers();
      await relaying([5_000]);
      await db.raw('create table item_2 partition of item for values from (10) to (20)');
      const away = { ...env, REDIS_URL: 'redis://127.0.0.1:1' };
      const diagnosis = await diagnosed(['--max-staleness', '5000'], away);
      expect(new Set(brokenOf(diagnosis))).to.deep.equal(new Set(['triggers', 'Redis']));
      expect(found(diagnosis, 'PostgreSQL')[0]).to.match(/^ok: /);
      expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
      expect(diagnosis).to.deep.include({
        step: 'unknown',
        promise: 'Redis could not be asked, so whether anybody bumps is not known',
        next: 'See to what is broken above, and look again.',
        notCovered: [],
        code: 1,
      });
    });

    it('that is away, does not say that nobody relays what waits', async () => {
      await installOutbox(db);
      const event = { cache, path: '', source: 'item', operation: 'UPDATE' };
      await db('gencache_outbox').insert({ ...event, recorded_at: db.raw(`now() - interval '1 minute'`) });
      const diagnosis = await diagnosed([], { ...env, REDIS_URL: 'redis://127.0.0.1:1' });
      const lag = diagnosis.findings.find(({ check }) => check === 'lag')!;
      expect(lag.message).to.match(/^events that wait: 1, the oldest for \d+ ms: nobody has bumped them$/);
      expect(lag.remedy).to.match(/^See to Redis;/);
    });
  });

  it('names no step where PostgreSQL is away', async () => {
    const away = { ...env, DATABASE_URL: 'postgres://postgres@127.0.0.1:1/postgres' };
    const diagnosis = await diagnosed(['--expect', '0'], away);
    expect(brokenOf(diagnosis)).to.deep.equal(['PostgreSQL']);
    expect(diagnosis).to.include({ step: 'unknown', code: 1 });
    expect(found(diagnosis, 'Redis')[0]).to.match(/^ok: /);
  });
});
