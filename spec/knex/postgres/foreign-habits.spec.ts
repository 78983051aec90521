/**
 * Steps 2 to 4 on a Knex that is configured for an application's own queries: hooks that rename, unpack or throw away
 * results, type parsers of its own, and settings of sessions that change how PostgreSQL reads or shows a statement.
 */
import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import {
  changed,
  checkTriggers,
  installMigrationsTrigger,
  installOutbox,
  knexSource,
  notifyRelays,
  onChangeOf,
  repairTriggers,
  uninstallOutbox,
  withoutEvents,
} from '../../../lib/knex/index.js';
import { installedRelease, OUTBOX_RELEASE } from '../../../lib/knex/install/install-outbox.js';
import { query } from '../../../lib/knex/postgres/query.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { WorkflowCache, workflowEngineMigrations } from '../../../lib/workflow-engine/index.js';
import { gencache } from '../../cli/gencache.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { lendRedis, redisUrl, uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { recordQueries } from '../../support/queries.js';

type Hook = (response: unknown) => unknown;

const camelCase = (key: string) => key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

function renamed(value: unknown, name: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((each) => renamed(each, name));
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [name(key), renamed(each, name)]));
}

const HOOKS: Readonly<Record<string, Hook>> = {
  'camelCases every key, deeply': (response) => renamed(response, camelCase),
  'returns rows in place of results': (response) => (response as { rows?: unknown } | undefined)?.rows ?? response,
  'makes every key upper case': (response) => renamed(response, (key) => key.toUpperCase()),
  'returns nothing': () => undefined,
};

/** Parsers of an application: JSON and arrays as text, a number for a boolean, a bigint for each integer. */
const PARSERS: Readonly<Record<number, (text: string) => unknown>> = {
  16: (text) => (text === 't' ? 1 : 0),
  20: BigInt,
  21: BigInt,
  23: BigInt,
  701: (text) => ({ float: text }),
  1700: (text) => ({ numeric: text }),
  25: (text) => `${text} `,
};
const types = { getTypeParser: (oid: number) => PARSERS[oid] ?? ((text: string) => text) };

const SETTINGS = [
  'default_transaction_isolation=serializable',
  'quote_all_identifiers=on',
  'standard_conforming_strings=off',
  'backslash_quote=on',
  'escape_string_warning=off',
  'datestyle=German',
  'intervalstyle=iso_8601',
  'bytea_output=escape',
  'extra_float_digits=0',
  'timezone=Asia/Kolkata',
];

const OUTBOX_TABLES = ['release', 'outbox', 'dead_letter', 'trigger', 'narrowed', 'authority', 'boot'];

describe('on the Knex of an application', () => {
  let friendly: Knex;

  beforeEach(async () => {
    friendly = await lendDatabase();
  });

  /** The URL of sessions with the settings of an application. */
  function hostileUrl(settings: readonly string[]): string {
    const options = [...SETTINGS, ...settings].map((setting) => `-c ${setting}`).join(' ');
    return `${databaseUrl()}${databaseUrl().includes('?') ? '&' : '?'}options=${encodeURIComponent(options)}`;
  }

  function lendHostile(postProcessResponse: Hook, settings = [`search_path=${schemaOf(friendly)}`]): Knex {
    const schema = schemaOf(friendly);
    const db = knex({
      client: 'pg',
      // Knex's types know no parsers of a connection; pg does.
      connection: {
        ...{ connectionString: hostileUrl(settings), application_name: schema, types },
      } as Knex.PgConnectionConfig,
      pool: { min: 0, max: 10 },
      postProcessResponse,
      wrapIdentifier: (value, wrap) => wrap(value.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)),
    });
    lend({ what: `a hostile Knex of ${schema}`, close: () => db.destroy() });
    return db;
  }

  for (const [title, hook] of Object.entries(HOOKS)) {
    it(`whose hook ${title}, the outbox, triggers, transactions and a relay with a bound work as on any other`, async () => {
      const db = lendHostile(hook);
      await friendly.raw('create table flow (id bigint primary key, env_id int, name text not null)');
      await friendly.raw('create table link (flow_id bigint not null, detector_id int not null)');
      await friendly.raw('create table knex_migrations (id serial, name text, batch int, migration_time timestamptz)');
      await friendly.raw(`insert into flow values (1, 7, 'first'), (2, 8, 'other')`);
      await friendly.raw('insert into link values (1, 42)');
      const name = uniqueName();

      await installOutbox(db);
      await installOutbox(db);
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
      const define = async () => {
        await onChangeOf(db, 'flow', { cache: name, limit: 100 })
          .lookUp('link', { flow_id: 'id' })
          .bump({ detector: 'detector_id', environment: changed('env_id') })
          .install();
        await onChangeOf(db, 'link', { cache: name }).bump({ detector: 'detector_id' }).install();
        await installMigrationsTrigger(db, { cache: name });
      };
      await define();
      const again = await recordQueries(db, define);
      expect(again.filter((sql) => /^\s*(create|alter|drop|insert|update|delete|lock)/i.test(sql))).to.deep.equal([]);
      expect(await checkTriggers(db)).to.deep.equal([]);
      expect(await checkTriggers(friendly)).to.deep.equal([]);
      await notifyRelays(db, true);
      await notifyRelays(db, true);

      const relay = lendRelay({ db, cache: name, maxStalenessMs: 1_000, pollMs: 20, listen: true });
      await eventually(() => expect(relay.status).to.include({ trusted: true, failures: 0 }));
      const cache = new GenerationalCache({
        ...{ name, source: knexSource(db), store: redisStore(lendRedis()), maxStalenessMs: 1_000 },
        ...{ readDeadlineMs: 1_000, closeDeadlineMs: 3_000 },
      });
      lend({ what: `the cache ${name}`, close: () => cache.close() });
      const environments = cache.namespace('detector', integer()).namespace('environment', integer());
      const names = environments.list('names', {
        load: (ids) =>
          friendly('flow')
            .join('link', 'flow_id', 'flow.id')
            .whereIn(
              'detector_id',
              ids.map(({ detector }) => Number(detector)),
            )
            .select<{ name: string; detector_id: number; env_id: number }[]>(),
        by: (row) => ({ detector: row.detector_id, environment: row.env_id }),
        value: (row) => row.name,
      });
      const ids = { detector: 42, environment: 7 };
      const warm = async () => {
        await eventually(async () => {
          await names.fetch(ids);
          await cache.settled();
          expect((await names.lookup(ids)).outcome).to.equal('hit');
        });
      };

      await warm();
      const rename = (to: string) => async (trx: Knex.Transaction) => {
        await trx.raw(`update flow set name = ? where id = 1`, [to]);
        return to;
      };
      const plain = await cache.transaction(rename('plain'));
      expect(plain).to.include({ value: 'plain', bump: 'done' });
      expect(await names.fetch(ids)).to.deep.equal(['plain']);

      await warm();
      const strict = await cache.transaction(rename('strict'), { strict: true });
      expect(strict).to.include({ bump: 'done', strict: 'kept' });
      expect(await names.fetch(ids)).to.deep.equal(['strict']);

      await warm();
      await db.transaction(async (trx) => {
        await withoutEvents(trx, () => rename('by hand')(trx));
        await environments.bump(ids, { trx });
      });
      await eventually(async () => expect(await names.fetch(ids)).to.deep.equal(['by hand']));

      await warm();
      const { events } = relay.status;
      await rename('by psql')(friendly as Knex.Transaction);
      await eventually(() => expect(relay.status.events).to.be.greaterThan(events));
      expect(await names.fetch(ids)).to.deep.equal(['by psql']);
      await eventually(async () => expect(await friendly('gencache_outbox')).to.deep.equal([]));
      expect(await friendly('gencache_dead_letter')).to.deep.equal([]);
      await eventually(() => expect(relay.status).to.include({ trusted: true, failures: 0, deadLetters: 0 }));
      await relay.stop();

      expect(await repairTriggers(db)).to.deep.equal([]);
      await uninstallOutbox(db);
      expect(await installedRelease(db)).to.equal(undefined);
      const { rows } = await friendly.raw<{ rows: unknown[] }>(
        `select proname from pg_proc where pronamespace = current_schema()::regnamespace`,
      );
      expect(rows).to.deep.equal([]);
    });

    it(`whose hook ${title}, the workflow cache reads workflows`, async () => {
      await friendly.migrate.latest({ migrationSource: workflowEngineMigrations, tableName: 'engine_migrations' });
      await friendly.raw('insert into detector (id, name, type) values (42, ?, ?)', ['door', 'error']);
      await friendly.raw(
        `insert into workflow (id, name, config, updated_at) values (1, 'open', '{"some_key": 1}', '2026-11-25 12:00:00.5+00')`,
      );
      await friendly.raw('insert into detector_workflow (detector_id, workflow_id) values (42, 1)');
      const name = uniqueName();
      const db = lendHostile(hook);
      const cache = new GenerationalCache({
        ...{ name, source: knexSource(db), store: redisStore(lendRedis()), readDeadlineMs: 1_000 },
      });
      lend({ what: `the cache ${name}`, close: () => cache.close() });
      const workflow = {
        ...{ id: 1, name: 'open', environmentId: null, config: { some_key: 1 } },
        updatedAt: new Date('2026-11-25T12:00:00.500Z'),
      };
      expect(await new WorkflowCache(cache).getWorkflowsByDetectors([42], null)).to.deep.equal([[workflow]]);
    });
  }

  it('all steps work under the worst of each habit at once, with a role for each program that has its rights alone', async () => {
    const schema = schemaOf(friendly);
    const [decoy, audit] = [`${schema}_decoy`, `${schema}_audit`];
    const roleOf = { owner: uniqueName('owner'), app: uniqueName('app'), relay: uniqueName('relay') };
    const roles = Object.values(roleOf);
    lend({
      what: `the schemas and roles of ${schema}`,
      async close() {
        await friendly.raw(`drop schema if exists ${decoy} cascade; drop schema if exists ${audit} cascade`);
        for (const role of roles) await friendly.raw(`drop owned by ${role} cascade; drop role ${role}`);
      },
    });
    for (const role of roles) await friendly.raw(`create role ${role}; grant usage on schema ${schema} to ${role}`);
    // Tables of the outbox's names stand first in each search path, and none of gencache's statements may meet them.
    await friendly.raw(`create schema ${decoy}; create schema ${audit} authorization ${roleOf.owner}`);
    await friendly.raw(`grant usage, create on schema ${schema} to ${roleOf.owner}`);
    for (const table of OUTBOX_TABLES) await friendly.raw(`create table ${decoy}.gencache_${table} (nothing int)`);
    // The policy hides every row of a looked-up table from a session without a tenant.
    await friendly.raw(`alter role ${roleOf.app} bypassrls; alter role ${roleOf.relay} bypassrls`);

    let responses = 0;
    const hooks = Object.values(HOOKS);
    const open = (role: string) =>
      lendHostile(
        (response) => hooks[responses++ % hooks.length]!(response),
        [
          ...[`role=${role}`, `search_path=${decoy},${schema}`, 'lock_timeout=50', 'statement_timeout=20000'],
          ...['row_security=off', 'idle_in_transaction_session_timeout=20000', 'default_transaction_deferrable=on'],
        ],
      );
    const owner = open(roleOf.owner);
    await owner.raw(`
      create table ${schema}.flow (id bigint primary key, env_id int, name text not null);
      create table ${schema}.link (flow_id bigint not null, detector_id int not null);
      create table ${schema}.knex_migrations (id serial, name text, batch int, migration_time timestamptz);
      create table ${schema}.knex_migrations_lock (index int, is_locked int);
      insert into ${schema}.flow values (1, 7, 'first'), (2, 8, 'other');
      insert into ${schema}.link values (1, 42);
      alter table ${schema}.link enable row level security;
      create policy tenant on ${schema}.link using (flow_id::text = current_setting('app.tenant', true))`);
    const name = uniqueName();
    const at = { schema: audit };
    await installOutbox(owner, at);
    await onChangeOf(owner, 'flow', { cache: name, schema, outbox: at })
      .lookUp('link', { flow_id: 'id' })
      .bump({ detector: 'detector_id', environment: changed('env_id') })
      .install();
    await onChangeOf(owner, 'link', { cache: name, schema, outbox: at }).bump({ detector: 'detector_id' }).install();
    await installMigrationsTrigger(owner, { cache: name, ...at });
    await friendly.raw(`
      grant usage on schema ${audit} to ${roleOf.app}, ${roleOf.relay};
      grant select, update on ${schema}.flow to ${roleOf.app};
      grant select on ${schema}.link to ${roleOf.app}, ${roleOf.relay};
      grant select on ${schema}.knex_migrations_lock to ${roleOf.relay};
      grant select, insert, update, delete on ${audit}.gencache_outbox to ${roleOf.app};
      grant select, update on ${audit}.gencache_authority to ${roleOf.app};
      grant select, insert, update, delete on ${audit}.gencache_declaration to ${roleOf.app};
      grant select, insert on ${audit}.gencache_boot to ${roleOf.app}, ${roleOf.relay};
      grant select, update, delete on ${audit}.gencache_outbox to ${roleOf.relay};
      grant select, insert, update on ${audit}.gencache_authority to ${roleOf.relay};
      grant insert on ${audit}.gencache_dead_letter to ${roleOf.relay};
      grant select on ${audit}.gencache_release, ${audit}.gencache_dead_letter, ${audit}.gencache_trigger,
        ${audit}.gencache_declaration to ${roleOf.relay}`);
    expect(await checkTriggers(owner, at)).to.deep.equal([]);

    const relayDb = open(roleOf.relay);
    const relay = lendRelay({ db: relayDb, cache: name, maxStalenessMs: 1_000, pollMs: 20, ...at });
    const failures: string[] = [];
    relay.on('failure', ({ error }) => failures.push(error.message));
    await eventually(() => expect(relay.status.trusted, failures.join()).to.equal(true));
    const app = open(roleOf.app);
    const cache = new GenerationalCache({
      ...{ name, source: knexSource(app, at), store: redisStore(lendRedis()), maxStalenessMs: 1_000 },
      ...{ readDeadlineMs: 1_000, closeDeadlineMs: 3_000 },
    });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    const environments = cache.namespace('detector', integer()).namespace('environment', integer());
    const names = environments.list('names', {
      load: async () => {
        const { rows } = await friendly.raw<{ rows: { name: string }[] }>('select name from flow where id = 1');
        return rows;
      },
      by: () => ({ detector: 42, environment: 7 }),
      value: (row) => row.name,
    });
    const ids = { detector: 42, environment: 7 };
    const warm = () =>
      eventually(async () => {
        await names.fetch(ids);
        await cache.settled();
        expect((await names.lookup(ids)).outcome).to.equal('hit');
      });
    const rename = (to: string) => (trx: Knex.Transaction) =>
      trx.raw(`update ${schema}.flow set name = '${to}' where id = 1`).then(() => to);
    const left = () =>
      friendly.raw<{ rows: unknown[] }>(`select * from ${audit}.gencache_outbox`).then(({ rows }) => rows);

    await warm();
    expect(await cache.transaction(rename('plain'))).to.include({ value: 'plain', bump: 'done' });
    expect(await names.fetch(ids)).to.deep.equal(['plain']);
    await warm();
    expect(await cache.transaction(rename('strict'), { strict: true })).to.include({ bump: 'done', strict: 'kept' });
    expect(await names.fetch(ids)).to.deep.equal(['strict']);
    await warm();
    await app.transaction(async (trx) => {
      await withoutEvents(trx, () => rename('by hand')(trx));
      await environments.bump(ids, { trx });
    });
    await eventually(async () => expect(await names.fetch(ids)).to.deep.equal(['by hand']));
    await warm();
    await rename('by the application')(app as Knex.Transaction);
    await eventually(async () => expect(await names.fetch(ids)).to.deep.equal(['by the application']));
    await warm();
    await owner.raw(`insert into ${schema}.knex_migrations (name, batch) values ('001.js', 1)`);
    await eventually(async () => expect((await names.lookup(ids)).outcome).to.equal('miss'));

    await eventually(async () => expect(await left()).to.deep.equal([]));
    await eventually(() => expect(relay.status).to.include({ trusted: true, deadLetters: 0 }));
    expect(failures).to.deep.equal([]);
    expect(warnings.filter((message) => !message.startsWith('Redis has'))).to.deep.equal([]);
    const env = {
      REDIS_URL: redisUrl(),
      DATABASE_URL: hostileUrl([`role=${roleOf.relay}`, `search_path=${decoy},${schema}`]),
    };
    const doctor = await gencache(['doctor', '--cache', name, '--schema', audit, '--expect', '4a'], env);
    expect(doctor.out).to.include('Expected: step 4a, met.');
    expect(doctor.code, doctor.out).to.equal(0);
    await relay.stop();
    for (const table of OUTBOX_TABLES) {
      const { rows } = await friendly.raw<{ rows: unknown[] }>(`select from ${decoy}.gencache_${table}`);
      expect(rows, table).to.deep.equal([]);
    }
    await uninstallOutbox(owner, at);
  }).timeout(60_000);

  it('a query gives values of the same types whatever the parsers are, in a transaction and a savepoint too', async () => {
    const db = lendHostile(() => undefined);
    const sql = `select 1 as i, 2::smallint as s, 3::bigint as b, true as t, '{"a_b": [1]}'::jsonb as j, '[]'::json as l,
      'text' as x, 1.5::float8 as f, null as n, array['a'] as a`;
    const row = { i: 1, s: 2, b: '3', t: true, j: { a_b: [1] }, l: [], x: 'text', f: 1.5, n: null, a: '{a}' };
    expect(await query(db, sql)).to.deep.equal([row]);
    expect(await query(db, `${sql} where ?`, [true])).to.deep.equal([row]);
    await db.transaction(async (trx) => {
      expect(await query(trx, `select 0 as before; ${sql}`)).to.deep.equal([row]);
      await trx.transaction(async (nested) => {
        expect(await query(nested, sql)).to.deep.equal([row]);
      });
    });
  });

  it('a query is seen by listeners of the Knex and of the transaction that begin later', async () => {
    const db = lendHostile(() => undefined);
    await query(db, 'select 1');
    const seen: string[] = [];
    const listener = ({ sql }: { sql: string }) => void seen.push(sql);
    db.on('query', listener);
    await query(db, 'select 2');
    await db.transaction((trx) => query(trx, 'select 3'));
    expect(seen).to.include.members(['select 2', 'select 3']);
  });
});
