/** Databases that take no writes: a hot standby that was passed by mistake, and one whose transactions are read-only by default. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../lib/knex/index.js';
import { DOCTOR_RIGHTS } from '../../lib/knex/outbox/missing-rights.js';
import { ConfigurationError } from '../../lib/index.js';
import { gencache, startGencache } from '../cli/gencache.js';
import { eventually } from '../support/deferred.js';
import { makeStandby, promote } from '../support/hot-standby.js';
import { lendKnex } from '../support/knexes.js';
import { databaseUrl, privatePostgres, schemaOf } from '../support/postgres.js';
import { redisUrl, uniqueName } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';
import { rejection } from '../support/rejection.js';
import { grantRights, lendRoleOfTables } from '../support/roles.js';
import type { PostgresServer } from '../support/servers/postgres-server.js';
import { createItems, openShop, recorded } from '../support/shop.js';

describe('a database whose transactions are read-only by default', () => {
  let db: Knex;
  let readOnly: Knex;
  let role: string;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
    role = await lendRoleOfTables(db);
    const options = `${schemaOf(db)} -c role=${role} -c default_transaction_read_only=on`;
    readOnly = lendKnex(databaseUrl(options), schemaOf(db));
  });

  it('has a relay that notes the boot, takes authority, bumps and deletes', async () => {
    const cache = uniqueName();
    await db('gencache_boot').delete(); // as after a crash
    await db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
    await db('gencache_outbox').insert({ cache, path: '?', source: 'item', operation: 'UPDATE' }); // a dead letter
    const relay = lendRelay({ db: readOnly, cache, pollMs: 20 });
    await eventually(() => expect(relay.status).to.include({ events: 2, deadLetters: 1, failures: 0, repairs: 1 }));
    expect(await recorded(db)).to.deep.equal([]);
  });

  for (const strict of [false, true]) {
    it(`takes a ${strict ? 'strict' : 'plain'} transaction that says it writes: its events are bumped and deleted`, async () => {
      const shop = openShop(readOnly);
      await shop.warm();
      const told: string[] = [];
      shop.cache.on('warning', ({ message }) => told.push(message));
      const done = await shop.cache.transaction(
        async (trx) => {
          await trx.raw('set transaction read write');
          return shop.change(5)(trx);
        },
        { strict },
      );
      expect(done).to.deep.equal({ value: 'now 5', bump: 'done', ...(strict && { strict: 'kept' }) });
      expect(await shop.warm()).to.equal(5);
      expect([await recorded(db), told]).to.deep.equal([[], []]);
    });
  }

  it('rejects any other transaction as PostgreSQL does, or with the remedy; nothing is bumped', async () => {
    const shop = openShop(readOnly);
    await shop.warm();
    expect(await rejection(shop.set(5))).to.include({ code: '25006' });
    const error = await rejection(shop.cache.transaction((trx) => shop.items.bump({ item: 1 }, { trx })));
    expect(error).to.be.instanceOf(ConfigurationError);
    expect(error.message).to.equal(
      'The outbox needs a transaction that may write, but this one is read-only: cannot execute INSERT in a read-only ' +
        'transaction. Begin it with `set transaction read write`, or switch `default_transaction_read_only` off.',
    );
    expect(await shop.outcome()).to.equal('hit');
  });
});

describe('a hot standby that was passed by mistake', () => {
  const NOT_PRIMARY =
    'The outbox needs the primary of PostgreSQL, but this server is a standby: cannot access temporary or unlogged ' +
    'relations during recovery. Connect `db` to the primary. After a promotion this server works as well.';
  let server: PostgresServer;
  let db: Knex;
  let cache: string;

  before(async () => {
    server = await privatePostgres({ for: 'suite' });
    const setUp = lendKnex(server.url);
    await installOutbox(setUp);
    await createItems(setUp);
    await setUp.raw('create role looking login');
    await grantRights(setUp, 'looking', DOCTOR_RIGHTS);
    await setUp.destroy();
    await makeStandby(server);
  });

  beforeEach(() => {
    db = lendKnex(server.url);
    cache = uniqueName();
  });

  const environment = () => ({ DATABASE_URL: server.url, REDIS_URL: redisUrl() });

  it('serves reads, and rejects writers with the fact', async () => {
    const shop = openShop(db);
    expect(await shop.warm()).to.equal(0);
    expect(await shop.outcome()).to.equal('hit');
    expect(await rejection(shop.set(5))).to.include({ code: '25006' });
    const error = await rejection(shop.cache.transaction(() => 'nothing'));
    expect(error).to.be.instanceOf(ConfigurationError);
    expect(error.message).to.equal(NOT_PRIMARY);
    expect(await shop.outcome()).to.equal('hit');
  });

  it('makes the doctor say that it is a standby, and nothing that is not true', async () => {
    const { out, code } = await gencache(['doctor', '--cache', cache, '--json'], environment());
    const { findings, step } = JSON.parse(out) as { step: string; findings: { status: string; check: string }[] };
    const broken = findings.filter(({ status }) => status === 'broken').map(({ check }) => check);
    expect([code, step, broken]).to.deep.equal([1, 'unknown', ['PostgreSQL']]);
  });

  /** Last: it is a primary afterwards. */
  it('makes a relay say so in each line, with pauses, until it is promoted; then the relay works', async () => {
    const failures: { message: string; atMs: number }[] = [];
    const relay = lendRelay({ db, cache, pollMs: 50 });
    relay.on('failure', ({ error }) => failures.push({ message: error.message, atMs: performance.now() }));
    const program = startGencache(['relay', '--cache', uniqueName()], environment());
    await program.said(/relay failed: The outbox needs the primary of PostgreSQL, but this server is a standby: /);
    await eventually(() => expect(failures.length).to.be.at.least(4));
    expect(new Set(failures.map(({ message }) => message))).to.deep.equal(new Set([NOT_PRIMARY]));
    expect(failures[3]!.atMs - failures[0]!.atMs).to.be.greaterThan(170); // half of 50, 100 and 200 ms
    expect(relay.status.trusted).to.equal(false);
    await promote(db);
    await eventually(() => expect(relay.status).to.include({ trusted: true, repairs: 1 }));
    await program.said(/relaying from now on/);
    expect((await program.end('SIGTERM')).code).to.equal(0);
  });
});
