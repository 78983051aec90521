/** A cache publishes what it is, in the outbox: seldom, behind the work of callers, and never in their way. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { AsyncLocalStorage } from 'node:async_hooks';
import { type Clock, GenerationalCache, integer, memoryStore, nullable, text, uuid } from '../../../lib/index.js';
import { knexSource } from '../../../lib/knex/index.js';
import { readDeclarations } from '../../../lib/knex/outbox/declarations.js';
import { declaredPaths, namesOf } from '../../../lib/model/cache-declaration.js';
import { LIBRARY_VERSION } from '../../../lib/model/library-version.js';
import { manualClock } from '../../../lib/testing/index.js';
import { deferred, eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { lendOutbox } from '../../support/relay.js';
import { lendRole } from '../../support/roles.js';

interface Row {
  readonly cache: string;
  readonly declaration: unknown;
}

describe('the declaration of a cache', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
  });

  /** One process of an application. */
  function open(
    own = db,
    { name = uniqueName(), maxStalenessMs, clock }: { name?: string; maxStalenessMs?: number; clock?: Clock } = {},
  ) {
    const rest = { ...(maxStalenessMs !== undefined && { maxStalenessMs }), ...(clock && { clock }) };
    const cache = new GenerationalCache({ name, store: memoryStore(), source: knexSource(own), ...rest });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    const orgs = cache.namespace('org', integer());
    const flags = orgs.value('flags', { load: ({ org }) => `flags of ${org}` });
    return { name, cache, orgs, flags, warnings };
  }

  /** The statements that publish, of all that this Knex sends. */
  function publications(own = db): string[] {
    const sent: string[] = [];
    const listener = ({ sql }: { sql: string }) => void (sql.startsWith('do ') && sent.push(sql));
    own.on('query', listener);
    lend({ what: 'a listener of queries', close: () => void own.removeListener('query', listener) });
    return sent;
  }

  const rows = (place = db) => place<Row>('gencache_declaration').select('cache', 'declaration');
  const published = (count: number) => eventually(async () => expect(await rows()).to.have.length(count));

  it('holds the tree with the kinds of ids, the entries, the bound and the versions, in the order of names', async () => {
    const { name, cache, orgs, flags } = open(db, { maxStalenessMs: 2_000 });
    orgs
      .namespace('env', nullable(text()))
      .list('segments', { load: async () => [], by: () => ({ org: 1, env: null }) });
    orgs.namespace('audit', uuid());
    cache.value('plans', { load: () => [] });
    await flags.fetch({ org: 7 });
    await published(1);
    expect(await rows()).to.deep.equal([
      {
        cache: name,
        declaration: {
          cache: name,
          maxStalenessMs: 2_000,
          schemaVersion: 1,
          library: LIBRARY_VERSION,
          entries: ['plans'],
          namespaces: [
            {
              name: 'org',
              kind: 'integer',
              entries: ['flags'],
              namespaces: [
                { name: 'audit', kind: 'uuid', entries: [], namespaces: [] },
                { name: 'env', kind: 'nullable text', entries: ['segments'], namespaces: [] },
              ],
            },
          ],
        },
      },
    ]);
    const [read] = await readDeclarations(db, {});
    expect(read).to.deep.include({ cache: name, application: schemaOf(db), maxStalenessMs: 2_000 });
    expect(read!.lastSeenMs).to.be.within(0, 5_000);
  });

  it('is published once by a process, in one statement, after its first load; a hit publishes nothing', async () => {
    const sent = publications();
    const { cache, flags } = open();
    expect(await flags.fetch({ org: 7 })).to.equal('flags of 7');
    await published(1);
    for (let org = 1; org <= 20; org++) await flags.fetch({ org: org % 10 });
    await cache.bump();
    await cache.close();
    expect(sent).to.have.length(1);
  });

  it('is published after a bump, recorded in a transaction or not', async () => {
    const first = open();
    await first.orgs.bump({ org: 1 });
    await published(1);
    const second = open();
    await second.cache.transaction((trx) => second.orgs.bump({ org: 1 }, { trx }));
    await published(2);
  });

  it('is no part of the transaction of the caller: a rollback keeps it, and a snapshot of the caller does not hold it', async () => {
    const { orgs, flags } = open();
    const failing = db.transaction(async (trx) => {
      await flags.fetch({ org: 1 }, { trx });
      await orgs.bump({ org: 1 }, { trx });
      await published(1);
      throw new Error('rolled back');
    });
    await failing.catch(() => {});
    expect(await rows()).to.have.length(1);
  });

  it('is not published where the source reads in a transaction, as tests of applications do', async () => {
    await db.transaction(async (trx) => {
      const { cache, flags } = open(trx);
      await flags.fetch({ org: 1 });
      await cache.close();
      expect(await rows(trx)).to.deep.equal([]);
    });
  });

  it('waits for no connection: a pool that is in use is left to the application', async () => {
    const own = lendKnex(databaseUrl(schemaOf(db)), schemaOf(db), { max: 1 });
    const { cache, flags } = open(own);
    const sent = publications(own);
    await own.transaction(async (trx) => {
      await flags.fetch({ org: 1 }, { trx });
      const beganMs = performance.now();
      await cache.close();
      expect(performance.now() - beganMs).to.be.below(10_000); // Knex waits for a connection for 60 s
    });
    expect(sent).to.deep.equal([]);
  });

  it('delays no read while its table is locked, and leaves nothing open after close()', async () => {
    const { cache, flags } = open();
    const sent = publications();
    const [locked, released] = [deferred(), deferred()];
    const locking = db.transaction(async (trx) => {
      await trx.raw('lock table gencache_declaration');
      locked.resolve();
      await released.promise;
    });
    await locked.promise;
    const beganMs = performance.now();
    for (let org = 1; org <= 10; org++) await flags.fetch({ org });
    expect(performance.now() - beganMs).to.be.below(1_000);
    await eventually(() => expect(sent).to.have.length(1));
    const closing = cache.close();
    released.resolve();
    await Promise.all([locking, closing]);
    expect(await rows()).to.have.length(1);
  });

  it('is published in no async context of a caller', async () => {
    const requests = new AsyncLocalStorage<string>();
    const contexts: unknown[] = [];
    const listener = ({ sql }: { sql: string }) => void (sql.startsWith('do ') && contexts.push(requests.getStore()));
    db.on('query', listener);
    const { flags } = open();
    await requests.run('a request', () => flags.fetch({ org: 1 }));
    await published(1);
    db.removeListener('query', listener);
    expect(contexts).to.deep.equal([undefined]);
  });

  it('that has grown is published again within seconds of a load, in place of what it was', async () => {
    const clock = manualClock();
    const { orgs, flags } = open(db, { clock });
    await flags.fetch({ org: 1 });
    await published(1);
    orgs.namespace('env', text());
    await flags.fetch({ org: 2 });
    clock.advance(10_000);
    await flags.fetch({ org: 3 });
    const trees = async () => (await readDeclarations(db, {})).map((tree) => declaredPaths(tree).map(namesOf));
    await eventually(async () => expect(await trees()).to.deep.equal([['org', 'org/env']]));
  });

  it('is published again by the first load after an hour', async () => {
    const clock = manualClock();
    const { flags } = open(db, { clock });
    const sent = publications();
    await flags.fetch({ org: 1 });
    await published(1);
    await db('gencache_declaration').update({ last_seen_at: db.raw(`now() - interval '1 hour'`) });
    clock.advance(3_200_000);
    await flags.fetch({ org: 2 });
    expect(sent).to.have.length(1);
    clock.advance(400_000);
    await flags.fetch({ org: 3 });
    await eventually(async () => expect((await readDeclarations(db, {}))[0]!.lastSeenMs).to.be.below(60_000));
    await flags.fetch({ org: 4 });
    expect(sent).to.have.length(2);
  });

  it('is dropped when no process has published it for a week', async () => {
    const { name, flags } = open();
    const old = (days: number) => ({
      ...{ cache: name, digest: `${days}`, declaration: { cache: name, entries: [], namespaces: [] } },
      last_seen_at: db.raw(`now() - interval '${days} days'`),
    });
    await db('gencache_declaration').insert([old(6), old(8), { ...old(9), cache: 'another' }]);
    await flags.fetch({ org: 1 });
    await eventually(async () =>
      expect(
        await db('gencache_declaration').whereRaw('length(digest) = 1').orderBy('digest').pluck('digest'),
      ).to.deep.equal(['6', '9']),
    );
  });

  it('is not published, and not missed, without an outbox, or in one of an older release', async () => {
    const bare = await lendDatabase();
    const failures: unknown[] = [];
    bare.on('query-error', (error) => failures.push(error));
    const { cache, flags, warnings } = open(bare);
    await flags.fetch({ org: 1 });
    await cache.close();
    expect({ failures, warnings }).to.deep.equal({ failures: [], warnings: [] });
    expect(await readDeclarations(bare, {})).to.deep.equal([]);
  });

  it('needs a right: without it the cache warns once, with the GRANT, and goes on', async () => {
    const role = await lendRole(db);
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    const own = lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
    const { flags, orgs, warnings } = open(own);
    expect(await flags.fetch({ org: 1 })).to.equal('flags of 1');
    await eventually(() => expect(warnings).to.have.length(1));
    const table = `"${schemaOf(db)}".gencache_declaration`;
    expect(warnings[0]).to.equal(
      'The cache works, but triggers and paths are not checked against its namespaces, which are not published. ' +
        `The role ${role} lacks rights on the outbox: DELETE, INSERT, SELECT, UPDATE on gencache_declaration. As the owner ` +
        `of the outbox, run: grant delete, insert, select, update on ${table} to "${role}";`,
    );
    expect(await readDeclarations(own, {})).to.deep.equal([]);

    const granted = /grant .*;/.exec(warnings[0]!)![0];
    await db.raw(granted);
    orgs.namespace('env', text());
    const another = open(own);
    await another.flags.fetch({ org: 1 });
    await published(1);
    expect(another.warnings).to.deep.equal([]);
  });
});
