import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { setTimeout as sleep } from 'node:timers/promises';
import { installOutbox } from '../../../lib/knex/index.js';
import { installMigrationsTrigger } from '../../../lib/knex/migrations/migrations-trigger.js';
import { changed, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { freshnessKey, generationKey, keyPrefix, markKey } from '../../../lib/model/key.js';
import { MARK_TTL_MS } from '../../../lib/ports/store.js';
import { lendCache } from '../../support/cache.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf, privatePostgres } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { HOSTS } from '../../support/redis-hosts.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { type Env, gencache, serversOf, startGencache } from '../gencache.js';
import {
  createMigrationsTable,
  describeCommand,
  installEveryTrigger,
  lendInstallation,
  withRole,
} from '../installation.js';

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

describeCommand('gencache doctor', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  const begin = async () => {
    ({ db, env, cache } = await lendInstallation({ outbox: false }));
  };

  beforeEach(begin);

  /**
   * A spec of an installation without a living relay. The doctor waits 3 s to see that, so the doctors of a suite run
   * together, each on the installation that its `arrange` left, with the arguments that `arrange` returned.
   */
  function itSees(
    title: string,
    arrange: () => Promise<{ args?: readonly string[]; servers?: Env } | void>,
    check: (diagnosis: Diagnosis & { code: number | null }, cache: string) => void,
  ): void {
    let diagnosis: ReturnType<typeof diagnosed>;
    let diagnosedCache: string;
    before(async () => {
      await begin();
      const { args, servers } = (await arrange()) ?? {};
      diagnosedCache = cache;
      diagnosis = diagnosed(args, servers);
      diagnosis.catch(() => {});
    });
    it(title, async () => check(await diagnosis, diagnosedCache));
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

  /** The findings of one check: `status: message`. */
  const found = ({ findings }: Diagnosis, check: string) =>
    findings.filter((finding) => finding.check === check).map(({ status, message }) => `${status}: ${message}`);

  const brokenOf = ({ findings }: Diagnosis) =>
    findings.filter(({ status }) => status === 'broken').map(({ check }) => check);

  async function relaying(maxStalenessMs: readonly number[] = [], url?: string) {
    const relay = lendRelay({ db, cache, maxStalenessMs, pollMs: 20, ...(url !== undefined && { url }) });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    // The check that takes authority renews no bound yet.
    const keys = maxStalenessMs.map((boundMs) => freshnessKey(keyPrefix(cache), boundMs));
    const redis = lendRedis();
    for (const key of keys) await eventually(async () => expect(await redis.exists(key)).to.equal(1));
    return relay;
  }

  /** Keeps the last claim of authority and the last check as young as they are, for a doctor that is slow to start. */
  function lendYoungTraces(place: Knex, name: string): void {
    const redis = lendRedis();
    const over = new AbortController();
    const renewing = (async () => {
      while (!over.signal.aborted) {
        await place('gencache_authority')
          .where({ cache: name })
          .update({ changed_at: place.raw('clock_timestamp()') });
        await redis.pexpire(markKey(keyPrefix(name)), MARK_TTL_MS);
        await sleep(200);
      }
    })();
    lend({ what: 'the traces of two relays', close: () => (over.abort(), renewing) });
  }

  describe('without an outbox', () => {
    it('names step 0 or 1, and the installation of the outbox as the next thing to do', async () => {
      const { code, out } = await gencache(['doctor', '--cache', cache], env);
      expect(out).to.match(/ok +PostgreSQL +\d+\.\d+.*, a primary\n/);
      expect(out).to.match(
        /warn +outbox +there is no outbox: changes are not recorded\n +-> For step 2, call `installOutbox`/,
      );
      expect(out).to.match(/Not covered: writes without a bump/);
      expect(out).to.match(
        /\nNext: Install the outbox .*\nStep 0 or 1: readers may get data of any age up to the TTL; .*\.\n$/,
      );
      expect(code).to.equal(0);
    });

    it('exits with 1 below the expected step', async () => {
      const [zero, one] = await Promise.all([diagnosed(['--expect', '0']), diagnosed(['--expect', '1'])]);
      expect(zero).to.include({ step: '0', code: 0, expected: '0' });
      expect(one).to.include({ step: '0', code: 1, expected: '1', reached: false });
    });
  });

  describe('with an outbox', () => {
    beforeEach(() => installOutbox(db));

    it('and a relay without triggers, names step 2 and the writes that are not covered', async () => {
      await createMigrationsTable(db);
      await relaying();
      const [diagnosis, more] = await Promise.all([diagnosed(['--expect', '2']), diagnosed(['--expect', '3'])]);
      expect(diagnosis).to.include({ step: '2', code: 0 });
      expect(found(diagnosis, 'relay')).to.deep.equal(['ok: a relay is alive']);
      expect(found(diagnosis, 'authority')).to.deep.equal(['ok: both servers are authoritative']);
      expect(found(diagnosis, 'triggers')).to.deep.equal([
        'warn: there are no triggers: a change by a writer that does not bump goes unnoticed',
      ]);
      expect(found(diagnosis, 'migrations')[0]).to.match(
        /^warn: no trigger records the migrations in \S+\.knex_migrations; Knex's hooks may/,
      );
      expect(diagnosis.notCovered.join()).to.match(/raw SQL, psql, other programs, migrations$/);
      expect(more.code).to.equal(1);
    });

    it('of an older release, finds the outbox broken', async () => {
      const older = await lendDatabase();
      await installOutbox(older, { release: 1 });
      const diagnosis = await diagnosed([], serversOf(older));
      expect(found(diagnosis, 'outbox')[0]).to.match(/^broken: the outbox has release 1; relays need release \d+$/);
      expect(diagnosis.code).to.equal(1);
    });

    it('without rights on it, names the missing rights and the statements that grant them', async () => {
      await withRole({ db, env }, async (role, as) => {
        await db.raw('grant select on all tables in schema ?? to ??', [schemaOf(db), role]);
        await db.raw('grant insert, delete on gencache_outbox to ??', [role]);
        await relaying(); // as the owner of the outbox
        const diagnosis = await diagnosed([], as);
        expect(found(diagnosis, 'rights')).to.deep.equal([
          `broken: the role ${role} lacks INSERT, UPDATE on gencache_authority; INSERT on gencache_boot; INSERT on gencache_dead_letter; UPDATE on gencache_outbox`,
        ]);
        const at = `"${schemaOf(db)}".gencache`;
        const remedy = diagnosis.findings.find(({ check }) => check === 'rights')!.remedy!;
        expect(remedy).to.equal(
          `As the owner of these tables, run: grant insert, update on ${at}_authority to "${role}"; grant insert on ${at}_boot to "${role}"; ` +
            `grant insert on ${at}_dead_letter to "${role}"; grant update on ${at}_outbox to "${role}"; ` +
            'Or run the doctor as the role of the relays.',
        );
        await db.raw(/grant.*;/.exec(remedy)![0]);
        expect(found(await diagnosed([], as), 'rights')).to.deep.equal([]);
        await db.raw('revoke select on gencache_outbox from ??', [role]);
        const blind = await diagnosed([], as);
        expect(found(blind, 'outbox').at(-1)).to.match(
          /^broken: the role \S+ can't read the outbox: permission denied for table gencache_outbox$/,
        );
        expect(blind.step).to.equal('unknown');
      });
    });

    it('that row level security hides from the role, names the tables and the remedy', async () => {
      await relaying();
      await withRole({ db, env }, async (role, as) => {
        await db.raw('grant select, insert, update, delete on all tables in schema ?? to ??', [schemaOf(db), role]);
        await db.raw('alter table gencache_outbox enable row level security');
        const blind = await diagnosed([], as);
        expect(found(blind, 'row level security')).to.deep.equal([
          'broken: Every role that uses the outbox, and its owner, must see all of its rows, but row level security hides ' +
            'rows of gencache_outbox.',
        ]);
        expect(blind).to.include({ step: 'unknown', code: 1 });
        expect(blind.findings.find(({ check }) => check === 'row level security')!.remedy).to.contain(
          `run: alter table "${schemaOf(db)}"."gencache_outbox" disable row level security;`,
        );
      });
      expect(found(await diagnosed(), 'row level security')).to.deep.equal([]);
    });

    it('and dead letters, counts them', async () => {
      await db.raw(
        `insert into gencache_dead_letter (cache, xid, seq, path, source, operation, application, recorded_at, bumped, reason)
         values (?, '3', 1, '!', 'item', 'UPDATE', '', now(), '', 'Its path is invalid.')`,
        [cache],
      );
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'dead letters')).to.deep.equal([
        'warn: events that no relay understood: 1; the relay bumped an ancestor scope for each',
      ]);
      expect(diagnosis.code).to.equal(0);
    });
  });

  describe('without a living relay', () => {
    itSees(
      'and with an outbox, names step 1',
      () => installOutbox(db),
      (diagnosis) => {
        expect(diagnosis).to.include({ step: '1', code: 0 });
        expect(found(diagnosis, 'relay')).to.deep.equal([
          'warn: no relay has ever run: events that a crash leaves in the outbox stay unbumped',
        ]);
        expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
        expect(diagnosis.next).to.match(/^Run `gencache relay --cache /);
      },
    );

    itSees(
      'and with events that wait, finds the lag broken',
      async () => {
        await installOutbox(db);
        await db('gencache_outbox').insert({ cache, path: '', source: 'item', operation: 'UPDATE' });
      },
      (diagnosis) => {
        expect(diagnosis).to.include({ step: '1', code: 1 });
        expect(found(diagnosis, 'lag')[0]).to.match(
          /^broken: events that wait: 1, the oldest for \d+ ms; the outbox takes \d+ \wB; no relay is alive to bump them$/,
        );
      },
    );

    itSees(
      'and with events that have waited for days, tells their age, their number and the size of the outbox',
      async () => {
        await installOutbox(db);
        await db.raw(
          `insert into gencache_outbox (cache, path, source, operation, recorded_at)
           select ?, 'item=' || i, 'item', 'UPDATE', now() - interval '3 days' from generate_series(1, 12000) i`,
          [cache],
        );
      },
      (diagnosis) =>
        expect(found(diagnosis, 'lag')[0]).to.match(
          /^broken: events that wait: more than 10000, the oldest for 3 days; the outbox takes \d+ \wB; no relay is alive to bump them$/,
        ),
    );

    itSees(
      'and with old events of another cache, names it',
      async () => {
        await installOutbox(db);
        await db.raw(
          `insert into gencache_outbox (cache, path, source, operation, recorded_at)
           select unnest(array['flgs', 'flgs', 'fresh']), 'item=1', 'item', 'UPDATE', now() - unnest(array[interval '30 h', '5 min', '0'])`,
        );
      },
      (diagnosis) =>
        expect(found(diagnosis, 'other caches')).to.deep.equal([
          'warn: no relay takes the events of the cache flgs: 2, the oldest for 30 h',
        ]),
    );

    itSees(
      'and with other cache names in the outbox, asks to check the name',
      async () => {
        await installOutbox(db);
        await db.raw('create table item (id int primary key)');
        await onChangeOf(db, 'item', { cache: 'shop' }).bump({ item: 'id' }).install();
        await db('gencache_outbox').insert({ cache: 'works', path: '', source: 'item', operation: 'UPDATE' });
      },
      (diagnosis, cache) => {
        expect(found(diagnosis, 'cache')).to.deep.equal([
          `warn: no trigger and no event has the cache name "${cache}"; this outbox has: shop, works`,
        ]);
        expect(diagnosis.next).to.match(/^Check that --cache is the `name` of the GenerationalCache\./);
        expect(diagnosis.findings.find(({ check }) => check === 'relay')!.remedy).to.not.include('gencache relay');
      },
    );

    itSees(
      'and with other names of relays alone, accepts the name',
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
      'and with events held by a dead migration, names the command that unlocks it',
      async () => {
        await installOutbox(db);
        const held = { cache, path: '', source: 'm', operation: 'migration', held_by: 'knex_migrations_lock' };
        await db('gencache_outbox').insert({ ...held, recorded_at: db.raw(`now() - interval '2 hours'`) });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'held by migration')[0]).to.match(
          /^warn: events held by the lock of a migration: 1, for 120 min; /,
        );
        expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
      },
    );

    itSees(
      'and with partitions of a Redis Cluster, tells which have authoritative servers, and which owe bumps',
      async () => {
        await installOutbox(db);
        const rows = [0, 1, 2].map((n) => ({ cache, partition: `${n}/4`, redis: 'a', postgres: 'b' }));
        await db('gencache_partition').insert([...rows, { ...rows[0]!, cache: 'other', partition: '3/4' }]);
        const owed = { cache, partition: '2/4', xid: '5', seq: 1, recorded_at: db.raw(`now() - interval '90 s'`) };
        await db('gencache_owed').insert({ ...owed, last_xid: '5', paths: ['item=1'] });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'partitions')).to.deep.equal([
          'warn: relays have made a server authoritative for 3 of 4 partitions',
        ]);
        expect(found(diagnosis, 'owed')).to.deep.equal(['warn: partitions owe bumps: 2/4, the oldest for 90 s']);
      },
    );

    itSees(
      'and without its mark, does not know the time of the last check',
      async () => {
        await installOutbox(db);
        const relay = await relaying();
        await relay.stop();
        await lendRedis().del(markKey(keyPrefix(cache)));
      },
      (diagnosis) =>
        expect(found(diagnosis, 'relay')).to.deep.equal([
          'broken: no relay is alive: the time of its last check is unknown',
        ]),
    );

    itSees(
      'on this Redis, but with one on another, says that this is not the authoritative one',
      async () => {
        await installOutbox(db);
        await relaying();
        return { servers: serversOf(db, (await privateRedis()).url) };
      },
      (diagnosis) => {
        expect(found(diagnosis, 'authority')).to.deep.equal([
          'broken: this Redis is not the authoritative one: it restarted or was replaced, or the relays use another Redis',
        ]);
        expect(diagnosis).to.include({ step: 'unknown', code: 1 });
        expect([...found(diagnosis, 'lag'), ...found(diagnosis, 'bound')]).to.deep.equal(['ok: no event waits']);
        expect(diagnosis.next).to.match(
          /^Check that REDIS_URL \(or --redis\) is the server of the caches and relays\./,
        );
        expect(diagnosis.notCovered).to.deep.equal([]);
      },
    );

    itSees(
      'that was authoritative until a relay on another Redis took its turn, says so',
      async () => {
        await installOutbox(db);
        const relay = await relaying();
        const other = await relaying([], (await privateRedis()).url);
        await Promise.all([relay.stop(), other.stop()]); // before a turn of 5 s is over
        lendYoungTraces(db, cache);
      },
      (diagnosis) => {
        expect(found(diagnosis, 'authority')).to.have.length(1);
        expect(found(diagnosis, 'authority')[0]).to.match(
          /^broken: another relay of this cache uses another Redis: it made that one authoritative \d+ s ago, and a relay checked this one \d+ s ago$/,
        );
        expect(diagnosis.code).to.equal(1);
      },
    );

    itSees(
      'and with triggers, finds that their events stay unbumped',
      async () => {
        await installOutbox(db);
        await installEveryTrigger({ db, cache });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'relay')).to.deep.equal([
          'broken: no relay has ever run: the events that triggers record stay unbumped',
        ]);
        expect(diagnosis).to.include({ step: '1', code: 1 });
      },
    );

    itSees(
      'since one has stopped, tells the time of its last check',
      async () => {
        await installOutbox(db);
        await installEveryTrigger({ db, cache });
        const relay = await relaying([60_000]);
        await relay.stop();
        await db('item').insert({ id: 1 });
      },
      (diagnosis) => {
        expect(found(diagnosis, 'relay')[0]).to.match(/^broken: no relay is alive: the last check was \d+ s ago$/);
        expect(found(diagnosis, 'lag')[0]).to.match(/; no relay is alive to bump them$/);
        expect(diagnosis).to.include({ step: '1', code: 1 });
        expect(diagnosis.boundsMs).to.deep.equal([]);
        expect(diagnosis.notCovered).to.deep.equal([
          'writes without a bump: triggers record them, and their events wait for a relay',
        ]);
        expect(found(diagnosis, 'bound')).to.deep.equal([
          'broken: no relay renews the bound of 60000 ms any more: after the expiry of its key a cache with this `maxStalenessMs` reads the source, and the database carries that load',
        ]);
      },
    );

    itSees(
      'since one was killed, tells that caches with a bound read the source',
      async () => {
        await installOutbox(db);
        const relay = startGencache(['relay', '--cache', cache, '--max-staleness', '200'], env);
        await relay.said(/global bumped/);
        await relay.end('SIGKILL');
      },
      (diagnosis) => {
        expect(found(diagnosis, 'bound')).to.deep.equal([
          'broken: no relay keeps a bound: a cache with `maxStalenessMs` reads the source, and the database carries that load',
        ]);
        expect(diagnosis.promise).to.match(/; caches with `maxStalenessMs` read the source$/);
        expect(diagnosis).to.include({ step: '1', code: 1 });
      },
    );
  });

  describe('with triggers', () => {
    beforeEach(async () => {
      await installOutbox(db);
      await installEveryTrigger({ db, cache });
    });

    it('and a relay, names step 3, the lag, and the changes that triggers do not see', async () => {
      await db.raw('create table report (id int)');
      await relaying();
      const [{ code, out }, more] = await Promise.all([
        gencache(['doctor', '--cache', cache, '--expect', '3'], env),
        diagnosed(['--expect', '4']),
      ]);
      const schema = schemaOf(db);
      expect(out)
        .to.include(`the triggers are sound on ${schema}.item\n`)
        .and.include(`a trigger records the migrations in ${schema}.knex_migrations\n`);
      expect(out).to.include(`Not covered: tables without triggers, if an entry reads them: ${schema}.report.\n`);
      expect(out).to.include('\nExpected: step 3, met.\n').and.not.include('broken');
      expect(out).to.include(
        '\nStep 4b: commits may be strict, `transaction(..., { strict: true })`; this Redis evicts ',
      );
      expect(out).to.match(
        /\nStep 3: readers may get data from before a commit for the relay's lag \(\d+ ms now\), and after a Redis /,
      );
      expect(code).to.equal(0);
      expect(more).to.include({ code: 1, reached: false });
    });

    it('asks to check a name that is not the relay’s, unless a cache has been read under it', async () => {
      const meant = cache;
      cache = uniqueName('typo');
      await relaying();
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'cache')).to.deep.equal([
        `warn: no trigger and no event has the cache name "${cache}"; this outbox has: ${meant}`,
      ]);
      expect(diagnosis.next).to.match(/^Check that --cache is the `name` of the GenerationalCache\./);
      // A cache whose writers all bump by hand leaves its global generation in Redis when it is read.
      await lendRedis().set(generationKey(keyPrefix(cache), ''), `0.${'a'.repeat(16)}`, 'PX', 60_000);
      const used = await diagnosed();
      expect(found(used, 'cache')).to.deep.equal([]);
      expect(used.next).to.match(/^Install triggers/);
    });

    it('and a relay that keeps a bound, names step 4a with that bound', async () => {
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
        /^readers with `maxStalenessMs` get nothing older than 5000 ms, relay dead or alive; /,
      );
      expect(named.boundsMs).to.deep.equal([4_321, 5_000]);
      expect(found(missing, 'bound')).to.deep.equal(['broken: no relay keeps the bound of 777 ms']);
      expect(missing).to.include({ step: '3', code: 1 });
      expect(strict.code).to.equal(0);
    });

    it('and a relay that keeps another bound than readers ask for, names both, and step 3', async () => {
      const read = async (maxStalenessMs: number) => {
        const { value } = lendCache({ name: cache, maxStalenessMs });
        await eventually(async () => expect(await value.lookup({ item: 1 })).to.include({ reason: 'not_fresh' }));
        await value.lookup({ item: 1 }); // its reply comes after that of the request
      };
      await read(1_017);
      await read(2_000); // before the relay began: kept by now
      await relaying([2_000]);
      const [diagnosis, expected, { out }] = await Promise.all([
        diagnosed(),
        diagnosed(['--expect', '4a']),
        gencache(['doctor', '--cache', cache], env),
      ]);
      const [kept, unkept, ...more] = found(diagnosis, 'bound');
      expect(kept).to.equal('ok: a relay keeps the bounds 2000 ms');
      expect(unkept).to.match(
        /^broken: no relay keeps the bound of 1017 ms; readers asked for it \d+ s ago, and read the source$/,
      );
      expect(more).to.deep.equal([]);
      expect(diagnosis.findings.find(({ status }) => status === 'broken')!.remedy).to.match(
        new RegExp(`^Run \`gencache relay --cache ${cache} --max-staleness 1017\``),
      );
      expect(diagnosis).to.include({ step: '3', code: 1 });
      expect(diagnosis.next).to.include(
        `\`gencache relay --cache ${cache} --max-staleness 1017 --max-staleness 2000\``,
      );
      expect(diagnosis.boundsMs).to.deep.equal([2_000]);
      expect(expected).to.include({ reached: false, code: 1 });
      expect(out).to.match(
        /; with `maxStalenessMs` 2000, nothing older than that; with `maxStalenessMs` 1017, which no relay keeps, they read the source\.\n$/,
      );

      await relaying([1_017]);
      const mended = await diagnosed(['--expect', '4a']);
      expect(mended).to.include({ step: '4a', code: 0 });
      expect(mended.boundsMs).to.deep.equal([1_017, 2_000]);
    });

    it('of which one is disabled, names the trigger and step 2', async () => {
      await relaying([5_000]);
      await db.raw('alter table item_1 disable trigger all');
      const diagnosis = await diagnosed();
      expect(new Set(brokenOf(diagnosis))).to.deep.equal(new Set(['triggers']));
      expect(found(diagnosis, 'triggers').join()).to.match(/item_1.* is DISABLED/);
      expect(diagnosis).to.include({ step: '2', code: 1 });
      expect(diagnosis.next).to.include('gencache triggers repair');
      const { out } = await gencache(['doctor', '--cache', cache, '--expect', '2'], env);
      expect(out).to.include('\nExpected: step 2, met, but a finding above is broken.\n');
      expect(out).to.include('\nStep 4b: not reached. Strict commits begin at step 3;');
      const more = await gencache(['doctor', '--cache', cache, '--expect', '3'], env);
      expect(more.out).to.include('\nExpected: step 3, not met.\n');
    });

    it('that look up each other in a circle, names the circle and step 2, and calls neither table sound', async () => {
      await relaying();
      await db.raw('create table flow (id int primary key, place text); create table link (flow_id int, spot text)');
      await onChangeOf(db, 'link', { cache, name: 'own' }).bump({ spot: 'spot' }).install();
      await onChangeOf(db, 'flow', { cache }).lookUp('link', { flow_id: 'id' }).bump({ spot: 'spot' }).install();
      const back = onChangeOf(db, 'link', { cache }).lookUp('flow', { id: 'flow_id' });
      await back.bump({ spot: changed('spot') }).install();
      expect(await diagnosed()).to.include({ code: 0 });
      await removeTriggers(db, 'link', { cache, name: 'own' });
      const diagnosis = await diagnosed();
      expect(new Set(brokenOf(diagnosis))).to.deep.equal(new Set(['triggers']));
      const text = found(diagnosis, 'triggers').join('\n');
      expect(text)
        .to.match(/flow: The lookups go in a circle/)
        .and.match(/link: The lookups go in a circle/);
      expect(text).to.match(/are sound on \S+\.item$/m);
      expect(diagnosis).to.include({ step: '2', code: 1 });
    });

    it('and a new partition without them, names the partition and step 2', async () => {
      await relaying();
      await db.raw('create table item_2 partition of item for values from (10) to (20)');
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'triggers').join()).to.match(/is missing on \S+item_2"/);
      expect(diagnosis).to.include({ step: '2', code: 1 });
    });

    it('but none on the table of migrations, stays at step 2', async () => {
      await relaying();
      await db.raw('alter table knex_migrations disable trigger all');
      const diagnosis = await diagnosed();
      expect(found(diagnosis, 'migrations')[0]).to.match(/^warn: /);
      expect(diagnosis).to.include({ step: '2', code: 0 });
      expect(diagnosis.next).to.include('installMigrationsTrigger');
    });

    it('and the list of another tool, names the tool, and is content with a trigger on that list', async () => {
      await relaying();
      await db.raw(`
        drop table knex_migrations;
        create table migrations (id serial primary key, name varchar(255) not null, run_on timestamp not null)`);
      const before = await diagnosed();
      const list = `${schemaOf(db)}.migrations`;
      expect(found(before, 'migrations')).to.deep.equal([
        `ok: a trigger records the migrations in ${schemaOf(db)}.knex_migrations`,
        `warn: no trigger records the migrations in ${list}, a list of db-migrate`,
      ]);
      expect(before).to.include({ step: '2', code: 0 });
      await installMigrationsTrigger(db, { cache, table: 'migrations', tableSchema: schemaOf(db) });
      const after = await diagnosed();
      expect(found(after, 'migrations')).to.include(`ok: a trigger records the migrations in ${list}`);
      expect(after).to.include({ step: '3', code: 0 });
    });

    it('and gencache.events off, names the session or the role', async () => {
      await relaying();
      const off = { ...env, DATABASE_URL: databaseUrl(`${schemaOf(db)} -c gencache.events=off`) };
      const diagnosis = await diagnosed([], off);
      expect(found(diagnosis, 'gencache.events')).to.deep.equal([
        'broken: gencache.events is off in this session: triggers record nothing there',
      ]);
      expect(diagnosis.step).to.equal('2');
      await withRole({ db, env }, async (role) => {
        await db.raw(`alter role ?? set gencache.events = 'off'`, [role]);
        expect(found(await diagnosed(), 'gencache.events')[0]).to.include(
          `gencache.events is off for ${role} in every database`,
        );
      });
    });
  });

  it('requires row-level triggers on a table that a subscription writes to', async () => {
    // A private server: subscriptions belong to the whole cluster, and only a superuser creates them.
    const server = await privatePostgres();
    db = knex({ client: 'pg', connection: server.url });
    lend({ what: 'its Knex', close: () => db.destroy() });
    await installOutbox(db);
    await installEveryTrigger({ db, cache });
    // Created without a connection to its publisher, the subscription has no tables yet.
    await db.raw(`create subscription s connection 'host=127.0.0.1 port=1' publication p with (connect = false)`);
    await db.raw(`
      insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
      select oid, 'item_1'::regclass, 'r' from pg_subscription`);
    await relaying();
    const diagnosis = await diagnosed([], { ...env, DATABASE_URL: server.url });
    expect(found(diagnosis, 'triggers').at(-1)).to.equal(
      'broken: public.item: logical replication writes to the table, and fires no statement triggers',
    );
    await onChangeOf(db, 'item', { cache, subscriber: true }).bump({ item: 'id' }).install();
    const mended = await diagnosed([], { ...env, DATABASE_URL: server.url });
    expect(found(mended, 'triggers')).to.deep.equal(['ok: the triggers are sound on public.item']);
  });

  describe('with a Redis', () => {
    it('that evicts, tells the cost', async () => {
      const server = await privateRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'] });
      db = await lendOutbox();
      await relaying([], server.url);
      const servers = serversOf(db, server.url);
      const [diagnosis, strict] = await Promise.all([diagnosed([], servers), diagnosed(['--expect', '4b'], servers)]);
      expect(found(diagnosis, 'Redis memory')[0]).to.match(
        /^warn: maxmemory 100.00M, allkeys-lru, 0 keys evicted: .*; an evicted quarantine costs the strictness of its commit$/,
      );
      expect(diagnosis).to.include({ strict: false, step: '2', code: 0 });
      expect(strict.code).to.equal(1);
    });

    it('that has replicas and an append-only file, tells what it can lose', async () => {
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
      expect(found(diagnosis, 'Redis persistence')).to.deep.equal([
        'ok: Redis keeps an append-only file: a restart may lose the last bumps; 1 replicas: a promoted replica may lack the last bumps',
      ]);
      expect(found(wrong, 'Redis')[0]).to.match(/^broken: .*, a replica: it may lag behind, and rejects writes$/);
      expect(wrong.code).to.equal(1);
    });

    it('that refuses INFO to its user, is broken', async () => {
      const server = await privateRedis();
      await lendRedis({ url: server.url }).acl('SETUSER', 'blind', 'on', '>secret', '~*', '+@all', '-info');
      const diagnosis = await diagnosed([], serversOf(db, server.url.replace('//', '//blind:secret@')));
      expect(found(diagnosis, 'Redis')[0]).to.match(/^broken: INFO is refused: NOPERM/);
    });

    for (const [policy, costs, remedy] of [
      ['allkeys-lfu', 'entries, a miss each, and almost no generation, since every read reads those', 'noeviction'],
      ['allkeys-lru', 'entries, a miss each, and some generations, a miss for each entry below', 'noeviction'],
      ['allkeys-random', 'at random, generations as readily as entries', 'allkeys-lfu'],
      [
        'volatile-lfu',
        'almost no generation, since every read reads those; while keys without a TTL fill it',
        'noeviction',
      ],
      ['volatile-lru', 'some generations, a miss for each entry below; while keys without a TTL fill it', 'noeviction'],
      ['volatile-random', 'at random, generations as readily as entries', 'allkeys-lfu'],
      ['volatile-ttl', 'first of all leases, quarantines and freshness keys, which expire soonest', 'allkeys-lfu'],
      ['noeviction', 'refuses fills, and misses go to the source; nothing is evicted', undefined],
    ] as const) {
      it(`with the policy ${policy}, tells what that costs`, async () => {
        const server = await privateRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', policy] });
        const { findings } = await diagnosed([], serversOf(db, server.url));
        const { message, remedy: advice } = findings.find(({ check }) => check === 'Redis memory')!;
        expect(message).to.include(costs);
        expect(/^Set maxmemory-policy to (\S+?),? /.exec(advice ?? '')?.[1]).to.equal(remedy);
      });
    }

    for (const [host, check, told] of [
      ['that does not know INFO', 'Redis', /^broken: INFO is refused: ERR unknown command/],
      ['like Dragonfly', 'Redis', /^warn: INFO does not tell run_id and master_replid: no relay bumps there/],
      [
        'like Dragonfly',
        'Redis memory',
        /^warn: maxmemory 1.00GiB, eviction, .*: a full Redis evicts entries and generations/,
      ],
      ['like Garnet', 'Redis memory', /^warn: INFO does not tell the eviction policy$/],
      ['with few sections in INFO', 'Redis', /^warn: 6.2.6, which does not tell whether it is a primary$/],
      ['that refuses INFO in scripts', 'Redis commands', /^broken: INFO is refused in scripts: no relay bumps there/],
      ['that refuses TIME in scripts', 'Redis commands', /^broken: TIME is refused in scripts: nothing is stored/],
      ['that refuses TIME', 'Redis commands', /^broken: TIME is refused: no relay bumps there/],
      ['that refuses scripts', 'Redis commands', /^broken: scripts are refused: nothing is stored or bumped/],
      ['that refuses all other commands', 'Redis commands', /^ok: /],
      [
        'that refuses all other commands',
        'Redis persistence',
        /^ok: Redis keeps snapshots, as far as is known without CONFIG/,
      ],
    ] as const) {
      it(`${host}, tells about ${check}`, async () => {
        const { url } = await startProxy((await privateRedis()).port, { host: HOSTS[host] });
        const findings = found(await diagnosed([], serversOf(db, url)), check);
        expect(
          findings.some((finding) => told.test(finding)),
          findings.join('\n'),
        ).to.equal(true);
      });
    }

    it('that refuses scripts, names step 1 without a look for relays', async () => {
      db = await lendOutbox();
      const { url } = await startProxy((await privateRedis()).port, { host: HOSTS['that refuses scripts'] });
      expect(await diagnosed([], serversOf(db, url))).to.include({ step: '1', code: 1 });
    });

    it('that has only the commands of a cache and a relay, sees a relay', async () => {
      db = await lendOutbox();
      const { url } = await startProxy((await privateRedis()).port, { host: HOSTS['that refuses all other commands'] });
      await relaying([], url);
      expect(await diagnosed([], serversOf(db, url))).to.include({ step: '2', code: 0 });
    });

    it('without maxmemory, tells that it evicts nothing', async () => {
      const diagnosis = await diagnosed([], serversOf(db, (await privateRedis()).url));
      expect(found(diagnosis, 'Redis memory')).to.deep.equal([
        'ok: no maxmemory: entries and orphans stay until their TTL, and Redis evicts nothing (noeviction)',
      ]);
    });

    it('that is away, names no step, and shows all other findings', async () => {
      await installOutbox(db);
      await installEveryTrigger({ db, cache });
      await relaying([5_000]);
      await db.raw('create table item_2 partition of item for values from (10) to (20)');
      const away = { ...env, REDIS_URL: 'redis://127.0.0.1:1' };
      const diagnosis = await diagnosed(['--max-staleness', '5000'], away);
      expect(new Set(brokenOf(diagnosis))).to.deep.equal(new Set(['triggers', 'Redis']));
      expect(found(diagnosis, 'PostgreSQL')[0]).to.match(/^ok: /);
      expect(found(diagnosis, 'lag')).to.deep.equal(['ok: no event waits']);
      expect(diagnosis).to.deep.include({
        step: 'unknown',
        promise: 'Redis is unreachable, so the doctor can not tell whether a relay is alive',
        next: 'Mend the broken findings above, and run the doctor again.',
        notCovered: [],
        code: 1,
      });
    });

    it('that is away, does not claim that no relay is alive', async () => {
      await installOutbox(db);
      const event = { cache, path: '', source: 'item', operation: 'UPDATE' };
      await db('gencache_outbox').insert({ ...event, recorded_at: db.raw(`now() - interval '1 minute'`) });
      const diagnosis = await diagnosed([], { ...env, REDIS_URL: 'redis://127.0.0.1:1' });
      const lag = diagnosis.findings.find(({ check }) => check === 'lag')!;
      expect(lag.message).to.match(
        /^events that wait: 1, the oldest for \d+ (?:s|min|h|days); the outbox takes \d+ \wB$/,
      );
      expect(lag.remedy).to.match(/^Mend Redis, run the doctor again, /);
    });
  });

  it('names no step when PostgreSQL is away', async () => {
    const away = { ...env, DATABASE_URL: 'postgres://postgres@127.0.0.1:1/postgres' };
    const diagnosis = await diagnosed(['--expect', '0'], away);
    expect(brokenOf(diagnosis)).to.deep.equal(['PostgreSQL']);
    expect(diagnosis).to.include({ step: 'unknown', code: 1 });
    expect(found(diagnosis, 'Redis')[0]).to.match(/^ok: /);
  });
});
