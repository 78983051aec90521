/** Row level security: a row that a role may not see never counts as a row that is not there (docs/protocol.md, rules 3 and 8). */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { checkTriggers, installOutbox, knexSource, onChangeOf } from '../../../lib/knex/index.js';
import { EVERYWHERE } from '../../../lib/knex/outbox/event-position.js';
import { surveyOutbox } from '../../../lib/knex/outbox/survey.js';
import { eventsOf } from '../../../lib/knex/outbox/transaction-events.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { lendRole } from '../../support/roles.js';

const BOUND_MS = 1_000;

describe('row level security', () => {
  /** The superuser, whom no policy concerns; the owner of all tables; and a role with README's grants. */
  let root: Knex;
  let owner: Knex;
  let app: Knex;
  let name: string;
  let schema: string;

  async function lendAs(rights: readonly string[]): Promise<Knex> {
    const role = await lendRole(root);
    for (const right of rights) await root.raw(`${right} to ??`, [role]);
    return lendKnex(databaseUrl(`${schema} -c role=${role}`), schema);
  }

  beforeEach(async () => {
    root = await lendDatabase();
    schema = schemaOf(root);
    name = uniqueName();
    owner = await lendAs([`grant all on schema ${schema}`]);
    await owner.raw('create table product (id int primary key, name text not null)');
    await owner.raw('create table shop_order (id int primary key, product_id int not null, tenant text not null)');
    await owner.raw(`insert into product values (1, 'old')`);
    await owner.raw(`insert into shop_order values (7, 1, 'a')`);
    await installOutbox(owner);
    await onChangeOf(owner, 'product', { cache: name })
      .lookUp('shop_order', { product_id: 'id' })
      .bump({ shop_order: 'id' })
      .install();
    await onChangeOf(owner, 'shop_order', { cache: name }).bump({ shop_order: 'id' }).install();
    app = await lendAs([
      `grant usage on schema ${schema}`,
      `grant select, insert, update, delete on all tables in schema ${schema}`,
    ]);
  });

  /** The name of the product of order 7, as readers see it; written and read by `db`. */
  function openShop(db: Knex, options: { readonly maxStalenessMs?: number } = {}) {
    const cache = new GenerationalCache({
      ...{ name, source: knexSource(db), store: redisStore(lendRedis()), ttlMs: 600_000, ...options },
      ...{ readDeadlineMs: 1_000, closeDeadlineMs: 3_000 },
    });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const product = cache.namespace('shop_order', integer()).one('product', {
      load: (ids) =>
        root('product')
          .join('shop_order', 'product_id', 'product.id')
          .whereIn(
            'shop_order.id',
            ids.map((id) => Number(id.shop_order)),
          )
          .select<{ id: number; name: string }[]>('shop_order.id', 'name'),
      by: ({ id }) => ({ shop_order: id }),
      value: (row) => row.name,
    });
    return {
      cache,
      async read() {
        const value = await product.fetch({ shop_order: 7 });
        await cache.settled();
        return value;
      },
      outcome: async () => (await product.lookup({ shop_order: 7 })).outcome,
      rename: (to: string, strict = false) =>
        cache.transaction(async (trx) => void (await trx.raw(`update product set name = ?`, [to])), { strict }),
    };
  }

  const isolate = async (table: string, force = false) => {
    await owner.raw('alter table ?? enable row level security', [table]);
    if (force) await owner.raw('alter table ?? force row level security', [table]);
    await owner.raw(`create policy tenant on ?? using (current_setting('app.tenant', true) = 'a')`, [table]);
  };
  const secure = async (tables: readonly string[]) => {
    for (const table of tables) await owner.raw('alter table ?? enable row level security', [table]);
  };
  const failuresOf = (db: Knex, options: { readonly maxStalenessMs?: number } = {}) => {
    const relay = lendRelay({ db, cache: name, pollMs: 20, ...options });
    const failures: string[] = [];
    relay.on('failure', ({ error }) => failures.push(error.message));
    return { relay, failures };
  };

  for (const forced of [false, true]) {
    const by = forced ? 'the owner, with FORCE,' : 'a role of its own';

    it(`on a looked-up table makes a transaction of ${by} bump all that the lookup could find`, async () => {
      const shop = openShop(forced ? owner : app);
      expect(await shop.read()).to.equal('old');
      await isolate('shop_order', forced);
      expect(await shop.outcome()).to.equal('hit');
      const { bump } = await shop.rename('new');
      expect(bump).to.equal('done');
      expect(await shop.read()).to.equal('new');
    });

    it(`on a looked-up table makes a relay of ${by} bump all that the lookup could find, and keep the reason`, async () => {
      const shop = openShop(root);
      expect(await shop.read()).to.equal('old');
      await isolate('shop_order', forced);
      const { relay } = failuresOf(forced ? owner : app);
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      expect(await shop.read()).to.equal('old');
      await root.raw(`update product set name = 'new'`);
      await eventually(() => expect(relay.status.events).to.equal(1));
      expect(await shop.read()).to.equal('new');
      const letters = await root('gencache_dead_letter').select('bumped', 'reason');
      expect(letters).to.have.length(1);
      expect(letters[0]).to.deep.equal({
        bumped: '',
        reason:
          'query would be affected by row-level security policy for table "shop_order". The role that runs lookups must ' +
          'see all rows of the table: grant it SELECT and, where row level security is on, BYPASSRLS.',
      });
      expect(relay.status).to.include({ trusted: true, failures: 0, deadLetters: 1 });
    });
  }

  it('on a looked-up table leaves a strict commit as it is: kept, with the bump of all that the lookup could find', async () => {
    const shop = openShop(app);
    expect(await shop.read()).to.equal('old');
    await isolate('shop_order');
    expect(await shop.rename('new', true)).to.include({ bump: 'done', strict: 'kept' });
    expect(await shop.read()).to.equal('new');
  });

  it('on a looked-up table is reported by checkTriggers to a role from which it hides rows', async () => {
    await isolate('shop_order');
    expect(await checkTriggers(owner)).to.deep.equal([]);
    await owner.raw('alter table shop_order force row level security');
    expect(await checkTriggers(owner)).to.deep.equal([
      {
        cache: name,
        table: `${schema}.product`,
        problem: 'looked-up rows hidden',
        severity: 'broken',
        message:
          `Row level security hides rows of ${schema}.shop_order from this role. A lookup by a role like that is refused, ` +
          'and global is bumped in its place.',
        remedy:
          'Give the role of the relays and of the writers BYPASSRLS, or let the owner of the table run relays, without FORCE.',
      },
    ]);
  });

  const hides = (...tables: string[]) =>
    'Every role that uses the outbox, and its owner, must see all of its rows, but row level security hides rows of ' +
    `${tables.join(', ')}. As the owner of the outbox, run: ` +
    `${tables.map((table) => `alter table "${schema}"."${table}" disable row level security;`).join(' ')} ` +
    'Or give the role BYPASSRLS, and switch FORCE off: `alter table ... no force row level security`.';
  const ALL = [
    ...['authority', 'boot', 'dead_letter', 'declaration', 'narrowed', 'outbox', 'owed', 'partition', 'release'],
    'trigger',
  ].map((table) => `gencache_${table}`);

  for (const [title, tables] of [
    ['on the outbox alone', ['gencache_outbox']],
    ['on all tables of the outbox', ALL],
  ] as const) {
    it(`${title} makes a transaction say \`pending\`, with the remedy`, async () => {
      const shop = openShop(app);
      expect(await shop.read()).to.equal('old');
      await secure(tables);
      const { bump, error } = await shop.rename('new');
      expect(bump).to.equal('pending');
      expect(error).to.include({ code: 'CONFIGURATION', message: hides('gencache_outbox') });
      expect(await root('gencache_outbox')).to.have.length(1);
    });

    it(`${title} makes a strict transaction reject before COMMIT`, async () => {
      const shop = openShop(app);
      await secure(tables);
      expect(await rejection(shop.rename('new', true))).to.include({ message: hides('gencache_outbox') });
      expect(await root('product').pluck('name')).to.deep.equal(['old']);
    });

    it(`${title} ends the trust of a relay, and with it the bound`, async () => {
      const { relay, failures } = failuresOf(app, { maxStalenessMs: BOUND_MS });
      const shop = openShop(root, { maxStalenessMs: BOUND_MS });
      await eventually(async () => {
        await shop.read();
        expect(await shop.outcome()).to.equal('hit');
      });
      await secure(tables);
      await eventually(() => expect(relay.status.trusted).to.equal(false));
      const seen = tables.filter((table) => /_(outbox|dead_letter|authority|boot)$/.test(table));
      await eventually(() => expect(failures).to.include(hides(...seen)));
      await root.raw(`update product set name = 'new'`);
      await eventually(async () => expect(await shop.read()).to.equal('new'), { withinMs: BOUND_MS + 5_000 });
      expect(relay.status).to.include({ trusted: false, events: 0 });
      await owner.raw('alter table gencache_outbox disable row level security');
      for (const table of tables) await owner.raw('alter table ?? disable row level security', [table]);
      await eventually(() => expect(relay.status).to.include({ trusted: true, events: 1 }));
    });
  }

  const READS: Readonly<Record<string, (db: Knex, xid: string) => Promise<number>>> = {
    'the rows of a relay’s survey': async (db) =>
      (await surveyOutbox(db, { cache: name, ranges: EVERYWHERE, outbox: {} })).tail.length,
    'the events of a transaction': async (db, xid) => (await eventsOf(db, name, xid, {})).length,
  };
  for (const [what, read] of Object.entries(READS)) {
    it(`switched off right after ${what} were read makes that read fail, and not find nothing`, async () => {
      const { connection } = (app.client as { config: { connection: { connectionString: string } } }).config;
      const one = lendKnex(connection.connectionString, schema, { max: 1 }); // its queries follow one another
      await secure(['gencache_outbox']);
      await root.raw(`update product set name = 'new'`);
      const [{ xid }] = (await root('gencache_outbox').select(root.raw('xid::text'))) as [{ xid: string }];
      // Between the read and the closer look that follows it, a query of `one` waits for this lock.
      const lock = await root.transaction();
      await lock.raw('select pg_advisory_xact_lock(hashtext(?))', [name]);
      let blocking: Promise<unknown> | undefined;
      one.on('query-response', (_rows: unknown, { sql }: { sql: string }) => {
        if (blocking === undefined && sql.includes('gencache_outbox')) {
          blocking = Promise.resolve(one.raw('select pg_advisory_xact_lock(hashtext(?))', [name]));
        }
      });
      const reading = rejection(read(one, xid));
      await eventually(() => expect(blocking).to.not.equal(undefined));
      await owner.raw('alter table gencache_outbox disable row level security');
      await lock.commit();
      await blocking;
      expect((await reading).message).to.match(/^Row level security was switched off while the outbox was read/);
      expect(await read(one, xid)).to.equal(1);
    });
  }

  it('on the authority alone makes a transaction leave its events to a relay', async () => {
    const { relay } = failuresOf(root);
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    await relay.stop();
    const shop = openShop(app);
    await secure(['gencache_authority']);
    await root('gencache_authority').update({ redis: 'another' });
    expect((await shop.rename('new')).bump).to.equal('done');
    expect(await root('gencache_outbox')).to.have.length(1);
  });

  it('on the list of triggers makes checkTriggers reject, and not find them in order', async () => {
    await secure(['gencache_trigger']);
    expect((await rejection(checkTriggers(app))).message).to.equal(hides('gencache_trigger'));
  });

  describe('forced upon the owner of the outbox', () => {
    beforeEach(async () => {
      await secure(['gencache_outbox']);
      await owner.raw('alter table gencache_outbox force row level security');
    });

    it('fails no write: triggers record nothing, and warn', async () => {
      const warnings: string[] = [];
      await owner.transaction(async (trx) => {
        const connection = (await (trx.client as { acquireConnection(): Promise<unknown> }).acquireConnection()) as {
          on(event: 'notice', listener: (notice: { message: string; hint: string }) => void): void;
        };
        connection.on('notice', ({ message, hint }) => warnings.push(`${message} (${hint})`));
        await trx.raw(`update product set name = 'new'`);
        await trx.raw(`insert into shop_order values (8, 1, 'b'), (9, 1, 'b')`);
        await trx.raw('truncate shop_order');
      });
      expect(warnings).to.deep.equal(
        Array(3).fill(
          'gencache records no changes: new row violates row-level security policy for table "gencache_outbox" ' +
            `(alter table "${schema}".gencache_outbox no force row level security)`,
        ),
      );
      expect(await root('product').pluck('name')).to.deep.equal(['new']);
      expect(await root('gencache_outbox')).to.deep.equal([]);
    });

    it('ends the trust of every relay, also of one that sees all rows', async () => {
      const { relay, failures } = failuresOf(root, { maxStalenessMs: BOUND_MS });
      await eventually(() => expect(failures).to.include(hides('gencache_outbox')));
      expect(relay.status.trusted).to.equal(false);
    });

    it('makes a transaction say `pending`, and an installation reject', async () => {
      const shop = openShop(root);
      const done = await shop.rename('new');
      expect(done).to.include({ bump: 'pending' });
      expect(done.error?.message).to.equal(hides('gencache_outbox'));
      expect((await rejection(installOutbox(owner))).message).to.equal(hides('gencache_outbox'));
    });
  });
});
