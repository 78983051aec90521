/**
 * A relay to which PostgreSQL does not tell its system or its timeline (docs/protocol.md, rule 11): the functions are revoked,
 * or raise an error as on Aurora. The relay notices each failover as before, and guarantees a bound only where the lineage is
 * not needed.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, type Relay } from '../../../../lib/knex/index.js';
import { DOCTOR_RIGHTS } from '../../../../lib/knex/outbox/missing-rights.js';
import { freshnessKey, keyPrefix, markKey } from '../../../../lib/model/key.js';
import { grantRights } from '../../../support/roles.js';
import { eventually } from '../../../support/deferred.js';
import { lendKnex } from '../../../support/knexes.js';
import { allowFunction, AURORA, LINEAGE_FUNCTIONS, raiseAsOnAurora } from '../../../support/lineage.js';
import { privatePostgres } from '../../../support/postgres.js';
import { lendRedis, redisUrl, uniqueName } from '../../../support/redis.js';
import { lendRelay } from '../../../support/relay.js';
import { rejection } from '../../../support/rejection.js';
import { createItems, openShop, recorded } from '../../../support/shop.js';
import { gencache, startGencache } from '../../../cli/gencache.js';
import type { PostgresServer } from '../../../support/servers/postgres-server.js';

const BOUND_MS = 1_000;
const FENCED_LATER =
  'Or, if the host ensures that a primary which was succeeded takes no more queries, say so: `gencache relay --fenced`, ' +
  '`startRelay({ fenced: true })`.';

describe('a relay to which PostgreSQL does not tell its lineage', function () {
  this.timeout(30_000);

  let server: PostgresServer;
  let db: Knex;
  let cache: string;

  before(async () => {
    server = await privatePostgres({ for: 'suite' });
    const setUp = lendKnex(server.url);
    await installOutbox(setUp);
    await createItems(setUp);
    await setUp.raw('create role relaying login; create role writing login');
    await grantRights(setUp, 'relaying', DOCTOR_RIGHTS);
    await setUp.raw(
      `grant select, insert, update, delete on gencache_outbox to writing; grant select, update on gencache_authority, item to
       writing; grant select, insert on gencache_boot to writing`,
    );
    await setUp.destroy();
  });

  beforeEach(() => {
    db = lendKnex(server.url);
    cache = uniqueName();
  });

  afterEach(async () => {
    const own = lendKnex(server.url);
    for (const name of [...LINEAGE_FUNCTIONS, 'pg_postmaster_start_time()']) await allowFunction(own, name, true);
  });

  const as = (role: string) => lendKnex(server.url.replace('postgres@', `${role}@`));
  interface Started {
    readonly relay: Relay;
    readonly warnings: string[];
    readonly failures: string[];
    readonly repairs: string[];
  }
  /** A relay, and what it tells. */
  function start(at: Knex, options: { fenced?: boolean; bounds?: readonly number[] } = {}): Started {
    const { fenced = false, bounds = [BOUND_MS] } = options;
    const relay = lendRelay({ db: at, cache, maxStalenessMs: bounds, fenced, pollMs: 20 });
    const told: Started = { relay, warnings: [], failures: [], repairs: [] };
    relay.on('warning', ({ message }) => told.warnings.push(message));
    relay.on('failure', ({ error }) => told.failures.push(error.message));
    relay.on('repair', ({ cause }) => told.repairs.push(cause));
    return told;
  }
  const trusting = ({ relay }: Started) => eventually(() => expect(relay.status.trusted).to.equal(true));
  const record = () => db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
  const drained = () => eventually(async () => expect(await recorded(db)).to.deep.equal([]));
  const mark = () => markKey(keyPrefix(cache));
  const isGuaranteed = async () => (await lendRedis().exists(freshnessKey(keyPrefix(cache), BOUND_MS))) === 1;
  const guaranteed = () => eventually(async () => expect(await isGuaranteed()).to.equal(true), { withinMs: 5_000 });
  /** Polls long enough for any key that the relay would renew. */
  async function guaranteesNothing({ relay }: Started): Promise<void> {
    let polls = 0;
    relay.on('poll', () => polls++);
    await eventually(() => expect(polls).to.be.greaterThan(20));
    expect(await isGuaranteed()).to.equal(false);
  }

  const GRANTS = {
    'pg_control_system()': 'grant execute on function pg_catalog.pg_control_system() to "relaying";',
    'pg_current_wal_lsn()':
      'grant execute on function pg_catalog.pg_current_wal_lsn(), pg_catalog.pg_walfile_name(pg_lsn) to "relaying";',
    'pg_walfile_name(pg_lsn)':
      'grant execute on function pg_catalog.pg_current_wal_lsn(), pg_catalog.pg_walfile_name(pg_lsn) to "relaying";',
  };

  for (const name of LINEAGE_FUNCTIONS) {
    it(`since ${name} is revoked bumps, guarantees no bound, and names the GRANT, with which it does`, async () => {
      await allowFunction(db, name, false);
      const started = start(as('relaying'));
      await trusting(started);
      await record();
      await drained();
      await guaranteesNothing(started);
      const part = name === 'pg_control_system()' ? 'system identifier' : 'timeline';
      const refused = `permission denied for function ${name.slice(0, name.indexOf('('))}`;
      const grant = GRANTS[name];
      expect(started.warnings).to.deep.equal([
        `PostgreSQL does not tell its ${part} (${refused}). The relay notices every failover, but not that its own primary ` +
          'was succeeded and runs on. So it guarantees no bound: caches with `maxStalenessMs` read the source. ' +
          `As a superuser, run: ${grant} Then restart the relays. ${FENCED_LATER}`,
      ]);
      expect(started.failures).to.deep.equal([]);
      await started.relay.stop();

      await db.raw(grant);
      const next = start(as('relaying'));
      await guaranteed();
      expect(next.warnings).to.deep.equal([]);
      expect(next.failures).to.deep.equal([]);
      await db.raw(grant.replace('grant', 'revoke').replace(' to ', ' from '));
    });
  }

  it('warns of no bound if none is asked for', async () => {
    await allowFunction(db, 'pg_control_system()', false);
    const started = start(as('relaying'), { bounds: [] });
    await trusting(started);
    expect(started.warnings[0]).to.match(/succeeded and runs on\. As a superuser, run: /);
  });

  it('guarantees the bound if it is told that a succeeded primary is fenced', async () => {
    await allowFunction(db, 'pg_control_system()', false);
    const started = start(as('relaying'), { fenced: true });
    await guaranteed();
    expect(started.warnings).to.have.length(1);
    expect(started.warnings[0]).to.match(/runs on\. `fenced` says that the host ends such a primary\.$/);
  });

  it('learns the lineage from a relay whose role may read it; both work side by side, and none repairs again', async () => {
    for (const name of LINEAGE_FUNCTIONS) await allowFunction(db, name, false);
    const blind = start(as('relaying'));
    await trusting(blind);
    await guaranteesNothing(blind);
    expect(blind.repairs).to.deep.equal(['first']);
    const seeing = start(db);
    await guaranteed();
    expect(seeing.repairs).to.deep.equal(['source']);
    await seeing.relay.stop();
    await lendRedis().del(freshnessKey(keyPrefix(cache), BOUND_MS));
    await guaranteed(); // by the other one
    expect([blind.repairs, blind.warnings.length]).to.deep.equal([['first'], 1]);
    const late = start(as('relaying'));
    await trusting(late);
    await guaranteed();
    expect([late.repairs, late.warnings]).to.deep.equal([[], []]);
  });

  it('notices that the server restarted, and that one backend crashed', async () => {
    for (const name of LINEAGE_FUNCTIONS) await allowFunction(db, name, false);
    const started = start(as('relaying'), { fenced: true });
    await guaranteed();
    await server.restart();
    await eventually(() => expect(started.repairs).to.deep.equal(['first', 'source']));
    await guaranteed();
    const { rows } = await lendKnex(server.url).raw<{ rows: { pid: number }[] }>('select pg_backend_pid() as pid');
    process.kill(rows[0]!.pid, 'SIGKILL');
    await eventually(() => expect(started.repairs).to.deep.equal(['first', 'source', 'source']));
    await guaranteed();
  });

  it('of a succeeded primary that runs on guarantees no bound when it meets the mark of the successor', async () => {
    await allowFunction(db, 'pg_control_system()', false);
    const redis = lendRedis();
    const started = start(as('relaying'));
    await trusting(started);
    const [incarnation] = (await redis.get(mark()))!.split(' ');
    await redis.set(mark(), `${incarnation} 7/0000000A/1/another another`, 'PX', 60_000);
    await eventually(() => expect(started.relay.status.trusted).to.equal(false));
    await record();
    await eventually(() => expect(started.repairs).to.deep.equal(['first', 'mark']));
    await drained();
    await guaranteesNothing(started);
  });

  it('needs pg_postmaster_start_time, and names its GRANT', async () => {
    await allowFunction(db, 'pg_postmaster_start_time()', false);
    const needs = (role: string) =>
      `PostgreSQL refused the role ${role}: permission denied for function pg_postmaster_start_time. As a superuser, run: ` +
      `grant execute on function pg_catalog.pg_postmaster_start_time() to "${role}";`;
    const started = start(as('relaying'));
    await eventually(() => expect(started.failures[0]).to.equal(needs('relaying')));
    const shop = openShop(as('writing'), { name: cache });
    expect((await rejection(shop.set(5))).message).to.equal(needs('writing'));
    expect((await db('item').first<{ price: number }>()).price).to.equal(0);
    await allowFunction(db, 'pg_postmaster_start_time()', true);
    expect((await shop.set(5)).bump).to.equal('done');
    await trusting(started);
  });

  describe('and a doctor', () => {
    const doctor = async () => {
      const url = server.url.replace('postgres@', 'relaying@');
      const { out } = await gencache(['doctor', '--cache', cache, '--json'], {
        ...{ DATABASE_URL: url, REDIS_URL: redisUrl() },
      });
      return JSON.parse(out) as {
        findings: { status: string; check: string; message: string; remedy: string }[];
      };
    };
    const lineages = (report: Awaited<ReturnType<typeof doctor>>) =>
      report.findings.filter(({ check }) => check === 'lineage');

    it('name the same functions, cost and remedy', async () => {
      await allowFunction(db, 'pg_control_system()', false);
      await trusting(start(as('relaying')));
      expect(lineages(await doctor())).to.deep.equal([
        {
          status: 'warn',
          check: 'lineage',
          message:
            'PostgreSQL does not tell its system identifier (permission denied for function pg_control_system): relays with this ' +
            'role guarantee no bound, unless they are told that the host fences',
          remedy: `As a superuser, run: ${GRANTS['pg_control_system()']} Then restart the relays. ${FENCED_LATER}`,
        },
      ]);
    });

    it('find nothing where another relay has read the lineage', async () => {
      const seeing = start(db);
      await guaranteed();
      await allowFunction(db, 'pg_control_system()', false);
      expect(lineages(await doctor())).to.deep.equal([]);
      await seeing.relay.stop();
    });

    it('name the GRANT of pg_postmaster_start_time', async () => {
      await allowFunction(db, 'pg_postmaster_start_time()', false);
      const [outbox] = (await doctor()).findings.filter(
        ({ check, status }) => check === 'outbox' && status === 'broken',
      );
      expect(outbox!.remedy).to.match(
        /^As a superuser, run: grant execute on function pg_catalog.pg_postmaster_start_time\(\) to "relaying"; /,
      );
    });

    it('agree on the bound of `gencache relay --fenced`', async () => {
      await allowFunction(db, 'pg_control_system()', false);
      startGencache(['relay', '--cache', cache, '--max-staleness', String(BOUND_MS), '--fenced'], {
        ...{ DATABASE_URL: server.url.replace('postgres@', 'relaying@'), REDIS_URL: redisUrl() },
      });
      await guaranteed();
      const bounds = (await doctor()).findings.filter(({ check }) => check === 'bound');
      expect(bounds).to.deep.equal([{ status: 'ok', check: 'bound', message: 'a relay keeps the bounds 1000 ms' }]);
    });
  });

  /** Last: it stays so. */
  describe('as on Aurora', () => {
    before(async () => {
      const setUp = lendKnex(server.url);
      await raiseAsOnAurora(setUp);
      await setUp.destroy();
    });

    it('bumps, guarantees no bound, and tells the reason; transactions and strict ones work', async () => {
      const started = start(db);
      await trusting(started);
      const shop = openShop(as('writing'), { name: cache });
      expect(await shop.set(6)).to.include({ bump: 'done' });
      expect(await shop.set(7, { strict: true })).to.include({ bump: 'done', strict: 'kept' });
      await record();
      await drained();
      await guaranteesNothing(started);
      expect(started.warnings).to.deep.equal([
        `PostgreSQL does not tell its timeline (${AURORA.message} (${AURORA.hint})). The relay notices every failover, but not ` +
          'that its own primary was succeeded and runs on. So it guarantees no bound: caches with `maxStalenessMs` read the ' +
          `source. On Aurora, logical replication (\`wal_level = logical\`) makes it tell. ${FENCED_LATER}`,
      ]);
      expect(started.failures).to.deep.equal([]);
    });

    it('guarantees the bound if it is told that a succeeded primary is fenced', async () => {
      const started = start(db, { fenced: true });
      await guaranteed();
      expect(started.warnings[0]).to.include(AURORA.message);
    });
  });
});
