import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { type GenerationalCache, integer, text } from '../../../lib/index.js';
import { coverage, type KnexContext, onChangeOf } from '../../../lib/knex/index.js';
import { lendOutbox } from '../../support/relay.js';
import { lendKnexCache, runMigration, summary } from './support.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { takeScopes } from '../triggers/support.js';
import { rejection } from '../../support/rejection.js';

describe('coverage', () => {
  let db: Knex;
  let cache: GenerationalCache<KnexContext, Knex.Transaction>;
  let name: string;

  before(async () => {
    db = await lendOutbox({ for: 'suite' });
    await db.raw(`
      create table customer (id int primary key, name text, last_seen_at timestamptz);
      create table product (id int primary key, name text, cents int, views int);
      create table shop_order (id serial primary key, customer_id int references customer, product_id int references product, item text);
      insert into customer values (42, 'Ann'); insert into product values (7, 'tent', 100, 0);
      insert into shop_order (customer_id, product_id, item) values (42, 7, 'raincoat');
    `);
  });

  beforeEach(() => {
    cache = lendKnexCache(db);
    name = cache.name;
  });

  /** An entry `customer.orders` whose loader sends this statement with the customers' ids. */
  function declare(sql: string, bindings?: (ids: number[]) => readonly unknown[], of: string = 'orders') {
    namespaces.set(cache, namespaces.get(cache) ?? cache.namespace('customer', integer()));
    namespaces.get(cache)!.list(of, {
      load: async (ids, { db }) => {
        const asked = ids.map(({ customer }) => Number(customer));
        return (await db.raw<{ rows: { customer_id: number }[] }>(sql, (bindings?.(asked) ?? [asked]) as never)).rows;
      },
      by: (row) => ({ customer: row.customer_id }),
    });
  }
  const namespaces = new WeakMap<
    object,
    ReturnType<typeof cache.namespace<'customer', number | bigint | string, number | string>>
  >();

  const check = (accept: readonly string[] = []) => coverage(cache, { db, samples: { customer: 42 }, accept });
  const watch = (table: string, options: object = {}) => onChangeOf(db, table, { cache: name, ...options });

  const JOIN = `select o.customer_id, o.item, p.name from shop_order o join product p on p.id = o.product_id where o.customer_id = any(?)`;

  describe('of tables', () => {
    it('finds the tables that no trigger watches, and the columns that the query depends on', async () => {
      declare(JOIN);
      const report = await check();
      expect(summary(report)).to.have.members([
        'gap table not watched: shop_order (customer_id, product_id, item)',
        'gap table not watched: product (id, name)',
      ]);
      expect(report.ok).to.equal(false);
      expect(report.entries).to.deep.include({
        entry: 'customer.orders',
        statements: [JOIN.replace('?', '$1')],
        rows: 1,
        tables: [
          { table: 'shop_order', columns: ['customer_id', 'product_id', 'item'], covered: false },
          { table: 'product', columns: ['id', 'name'], covered: false },
        ],
      });
    });

    it('proposes a migration that covers the entry, and bumps what each change concerns', async () => {
      declare(JOIN);
      const { migration } = await check();
      expect(migration).to.include(
        `.lookUp('shop_order', { product_id: 'id' })\n    .bump({ customer: 'customer_id' })`,
      );
      await runMigration(migration, db);
      const report = await check();
      expect(report.text).to.include('1 entry of').and.include('and triggers watch all that they read.');
      expect(summary(report, ['gap', 'unknown', 'note'])).to.deep.equal([]);
      expect(report.ok).to.equal(true);
      await db('product').where({ id: 7 }).update({ views: 1 });
      expect(await takeScopes(db)).to.deep.equal([]);
      await db('product').where({ id: 7 }).update({ name: 'a tent' });
      expect(await takeScopes(db)).to.deep.equal(['customer=42']);
      await db('shop_order').where({ customer_id: 42 }).update({ item: 'umbrella' });
      expect(await takeScopes(db)).to.deep.equal(['customer=42']);
    });

    it('leaves no view, no prepared statement and no row behind', async () => {
      declare(JOIN);
      const before = await db.raw(`select count(*) from pg_class`);
      await check();
      const after = await db.raw(`select count(*) from pg_class`);
      const prepared = await db.raw(`select count(*)::int from pg_prepared_statements`);
      expect(after.rows).to.deep.equal(before.rows);
      expect(prepared.rows).to.deep.equal([{ count: 0 }]);
    });

    it('takes the triggers of a partitioned table for those of its partition', async () => {
      await db.raw(`
        create table log (customer_id int, at int, line text) partition by range (at);
        create table log_1 partition of log for values from (0) to (10)`);
      await watch('log').bump({ customer: 'customer_id' }).install();
      declare('select customer_id, line from log where customer_id = any(?)');
      declare('select customer_id, line from log_1 where customer_id = any(?)', undefined, 'first');
      expect(summary(await check())).to.deep.equal([]);
    });

    it('follows views to their tables', async () => {
      await db.raw(`
        create view ordered as select o.customer_id as who, p.name from shop_order o join product p on p.id = o.product_id;
        create view twice as select who, name as product from ordered`);
      declare('select who as customer_id, product from twice where who = any(?)');
      const report = await check();
      expect(summary(report)).to.have.members([
        'gap table not watched: shop_order (customer_id, product_id)',
        'gap table not watched: product (id, name)',
      ]);
      expect(report.migration).to.include(
        `.lookUp('shop_order', { product_id: 'id' })\n    .bump({ customer: 'customer_id' })`,
      );
    });

    it('takes a whole row for all columns', async () => {
      declare(
        'select o.customer_id, row_to_json(p) from shop_order o join product p on p.id = o.product_id where o.customer_id = any(?)',
      );
      expect(summary(await check())).to.include('gap table not watched: product (id, name, cents, views)');
    });
  });

  describe('of triggers', () => {
    beforeEach(() => declare(JOIN));

    it('finds columns that they leave out', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product', { columns: ['cents'] })
        .lookUp('shop_order', { product_id: 'id' })
        .bump({ customer: 'customer_id' })
        .install();
      const report = await check();
      expect(summary(report)).to.deep.equal(['gap column left out: product (name)']);
      expect(report.proposals.map(({ sentence }) => sentence)).to.deep.equal([
        `await onChangeOf(db, 'product', { cache: '${name}', columns: ['id', 'name', 'cents'] })\n` +
          `  .lookUp('shop_order', { product_id: 'id' })\n  .bump({ customer: 'customer_id' })\n  .install();`,
      ]);
      await runMigration(report.migration, db);
      expect((await check()).ok).to.equal(true);
    });

    it('finds operations that they leave out', async () => {
      await watch('shop_order', { operations: ['insert', 'update'] })
        .bump({ customer: 'customer_id' })
        .install();
      await watch('product').bump({}).install();
      expect(summary(await check())).to.deep.equal(['gap operation left out: shop_order (delete)']);
    });

    it('misses no insert and no delete that rows with a foreign key tell of', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product', { operations: ['update'] })
        .bump({})
        .install();
      expect(summary(await check())).to.deep.equal([]);
      await watch('shop_order', { operations: ['insert', 'update'] })
        .bump({ customer: 'customer_id' })
        .install();
      expect(summary(await check())).to.have.members([
        'gap operation left out: shop_order (delete)',
        'gap operation left out: product (insert, delete)',
      ]);
    });

    it('finds a join whose other side they do not look up', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product').bump({ customer: 'id' }).install();
      expect(summary(await check())).to.deep.equal(['gap join not looked up: product']);
    });

    it('finds an id of another column', async () => {
      await watch('shop_order').bump({ customer: 'id' }).install();
      await watch('product').bump({}).install();
      expect(summary(await check())).to.deep.equal(['gap id of another column: shop_order']);
    });

    it('finds bumps of a scope that the entry does not depend on', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product').bump({ product: 'id' }).install();
      expect(summary(await check())).to.deep.equal(['gap scope not bumped: product']);
    });

    it('finds triggers that are not as they were installed', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product').bump({}).install();
      expect((await check()).ok).to.equal(true);
      await db.raw('alter table product disable trigger user');
      try {
        const report = await check();
        expect(new Set(summary(report))).to.deep.equal(
          new Set([`gap triggers not as installed: ${schemaOf(db)}.product`]),
        );
        expect(report.text).to.include('is DISABLED').and.include('gencache triggers repair');
      } finally {
        await db.raw('alter table product enable trigger user');
      }
    });

    it('takes a bump of any scope that the entry depends on', async () => {
      const products = cache.namespace('product', integer());
      cache.namespace('region', integer()).list('offers', {
        key: { product: integer() },
        dependsOn: ({ product }) => [products.scope({ product })],
        load: (ids, { db }) =>
          db<{ id: number; name: string }>('product').whereIn(
            'id',
            ids.map(({ product }) => Number(product)),
          ),
        by: (row) => ({ region: 1, product: row.id }),
      });
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product').bump({ product: 'id' }).install();
      const report = await coverage(cache, { db, samples: { customer: 42, region: 1, product: 7 } });
      expect(summary(report)).to.deep.equal(['gap scope not bumped: product']);
      expect(report.findings[0]!.entries).to.deep.equal(['customer.orders']);
      expect(report.proposals[0]!.sentence)
        .to.include(`.bump({ product: 'id' })`)
        .and.include(`.lookUp('shop_order', { product_id: 'id' })\n  .bump({ customer: 'customer_id' })`);
    });

    it('takes the triggers of another cache for none', async () => {
      await onChangeOf(db, 'shop_order', { cache: 'another' }).bump({ customer: 'customer_id' }).install();
      expect(summary(await check())).to.include('gap table not watched: shop_order (customer_id, product_id, item)');
    });

    it('notes a noisy column that is watched and not read, with the columns to name', async () => {
      await watch('shop_order').bump({ customer: 'customer_id' }).install();
      await watch('product', { columns: ['id', 'name', 'views'] })
        .bump({})
        .install();
      await watch('customer').bump({ customer: 'id' }).install();
      const report = await check();
      expect(report.ok).to.equal(true);
      expect(summary(report, ['note'])).to.have.members([
        'note column watched and not read: shop_order (id)',
        'note column watched and not read: product (views)',
        `note table watched and not read: ${schemaOf(db)}.customer`,
      ]);
      expect(report.text).to.include(`Pass \`columns: ['id', 'name']\` to \`onChangeOf\`.`);
    });
  });

  describe('of what can not be seen', () => {
    const unknowns = async (sql: string, bindings?: (ids: number[]) => readonly unknown[]) => {
      declare(sql, bindings);
      return (await check()).findings.filter(({ severity }) => severity === 'unknown');
    };

    it('says a function of the application, and takes the owner at his word for it', async () => {
      await db.raw(
        `create function price(int) returns int language sql stable as 'select cents from product where id = $1'`,
      );
      const [found] = await unknowns(
        'select customer_id, price(product_id) from shop_order where customer_id = any(?)',
      );
      expect(found).to.include({ kind: 'function', subject: 'function price(integer)' });
      expect(summary(await check(['function price(integer)']), ['unknown'])).to.deep.equal([]);
    });

    it('says a function in GROUP BY, and derives ids through it', async () => {
      await db.raw(`create function lately(int) returns int language sql volatile as 'select $1'`);
      declare(`select g.customer_id from (select customer_id, lately(product_id) from shop_order group by 1, lately(product_id)) g
        where g.customer_id = any(?)`);
      const report = await check();
      expect(report.findings.map(({ subject }) => subject)).to.include('function lately(integer)');
      expect(report.migration).to.include(`.bump({ customer: 'customer_id' })`);
    });

    it('believes an IMMUTABLE function', async () => {
      await db.raw(`create function twice(int) returns int language sql immutable as 'select 2 * $1'`);
      expect(
        await unknowns('select customer_id, twice(product_id) from shop_order where customer_id = any(?)'),
      ).to.deep.equal([]);
    });

    it('says a set-returning function, also in FROM', async () => {
      await db.raw(`create function popular() returns setof product language sql stable as 'select * from product'`);
      const found = await unknowns(
        'select o.customer_id, p.name from shop_order o, popular() p where o.customer_id = any(?)',
      );
      expect(found.map(({ subject }) => subject)).to.deep.equal(['function popular()']);
    });

    it('says the clock, random values and sequences', async () => {
      await db.raw('create sequence ticket');
      const found = await unknowns(
        `select o.customer_id, now(), current_date, random(), (select last_value from ticket), nextval('ticket') is null from shop_order o where false and o.customer_id = any(?)`,
      );
      expect(found.map(({ subject }) => subject)).to.have.members([
        ...[
          'clock of customer.orders',
          'clock of customer.orders',
          'function random()',
          'function nextval(regclass)',
          'sequence ticket',
        ],
      ]);
    });

    it('says a materialized view, a table of PostgreSQL, and a foreign table', async () => {
      await db.raw(`
        create materialized view totals as select customer_id, count(*) as number from shop_order group by 1;
        create extension if not exists postgres_fdw schema pg_catalog;
        create server elsewhere foreign data wrapper postgres_fdw;
        create foreign table abroad (customer_id int) server elsewhere`);
      const found = await unknowns(
        `select t.customer_id from totals t, pg_class c where t.customer_id = any(?) and c.oid = 1`,
      );
      expect(found.map(({ subject }) => subject)).to.have.members([
        'materialized view totals',
        'system table pg_class',
      ]);
      declare('select customer_id from abroad where customer_id = any(?)', undefined, 'abroad');
      expect((await check()).findings.map(({ subject }) => subject)).to.include('foreign table abroad');
    });

    it('says statements that are no SELECT, and loaders that write', async () => {
      const found = await unknowns(
        `insert into shop_order (customer_id) select unnest(?::int[]) returning customer_id`,
      );
      expect(found.map(({ kind }) => kind)).to.have.members(['loader failed', 'statement not readable']);
      expect(found[0]!.message).to.include('read-only transaction');
      await db.transaction(async (trx) => {
        await coverage(cache, { db: trx, samples: { customer: 42 } });
        await trx.raw(`create table after_it (id int)`);
      });
      expect(await db('shop_order').select('id')).to.have.length(1);
    });

    it('says several statements in one text, and runs none of them', async () => {
      const found = await unknowns(`select 1; select customer_id from shop_order where customer_id = 42`, () => []);
      expect(found.map(({ kind }) => kind)).to.include('statement not readable');
      expect(found.map(({ message }) => message).join('')).to.include('several statements in one text');
    });

    it('says a loader that reads by another way than its context', async () => {
      cache.value('rate', { load: () => 7 });
      expect(summary(await check())).to.deep.equal(['unknown no statement: entry global.rate']);
      expect(summary(await check(['entry global.rate', 'entry x']), ['note'])).to.deep.equal([
        'note accepted: entry global.rate',
        'note accepted and not found: entry x',
      ]);
      expect((await check(['entry global.rate'])).ok).to.equal(true);
    });

    it('says an entry without a sample', async () => {
      cache.namespace('tenant', text()).value('x', { load: ({ tenant }) => tenant });
      expect(summary(await check())).to.deep.equal(['unknown no sample: entry tenant.x']);
    });

    it('says row level security', async () => {
      await db.raw(
        `create table secret (customer_id int); alter table secret enable row level security, force row level security`,
      );
      const role = `reader_${name.replaceAll(/\W/g, '_')}`;
      await db.raw(
        `create role ${role}; grant select on secret to ${role}; grant usage on schema ${(await db.raw('select current_schema() as s')).rows[0].s} to ${role}`,
      );
      try {
        declare('select customer_id from secret where customer_id = any(?)');
        const found = await db.transaction(async (trx) => {
          await trx.raw(`grant select on gencache_trigger to ${role}; set local role ${role}`);
          return (await coverage(cache, { db: trx, samples: { customer: 42 } })).findings;
        });
        expect(found.map(({ subject }) => subject)).to.include('policies of secret');
      } finally {
        await db.raw(`drop owned by ${role}; drop role ${role}`);
      }
    });
  });

  describe('of statements with parameters', () => {
    const cases: Record<string, [string, (ids: number[]) => readonly unknown[]]> = {
      'in a list': ['select customer_id, item from shop_order where customer_id in (?, ?)', ([id]) => [id, id]],
      'in an array': ['select customer_id, item from shop_order where customer_id = any(?::int[])', (ids) => [ids]],
      'in LIMIT and OFFSET': [
        'select customer_id, item from shop_order where customer_id = any(?) limit ? offset ?',
        (ids) => [ids, 10, 0],
      ],
      'in FETCH FIRST': [
        'select customer_id, item from shop_order where customer_id = any(?) fetch first (?) rows only',
        (ids) => [ids, 10],
      ],
      'in operators of JSON': [
        `select customer_id, to_jsonb(item) -> ? as x, item from shop_order where customer_id = any(?)`,
        (ids) => ['a', ids],
      ],
      'in unnest': [
        'select customer_id, item from unnest(?::int[]) as asked(id) join shop_order on customer_id = asked.id',
        (ids) => [ids],
      ],
      'in VALUES': [
        'select customer_id, item from (values (?::int), (?)) as asked(id) join shop_order on customer_id = asked.id',
        ([id]) => [id, id],
      ],
      'in a CTE': [
        'with mine as (select * from shop_order where customer_id = any(?)) select customer_id, item from mine',
        (ids) => [ids],
      ],
      'in pairs': [
        'select customer_id, item from shop_order where (customer_id, item) in ((?, ?), (?, ?))',
        ([id]) => [id, 'a', id, 'b'],
      ],
      'in UNION': [
        `select customer_id, item from shop_order where customer_id = any(?) union select customer_id, item from shop_order where customer_id = any(?)`,
        (ids) => [ids, ids],
      ],
      'beside literals and comments': [
        `select customer_id, item, '$1;' as "a$2" /* $3 /* ; */ */ from shop_order where customer_id = any(?) -- $4 ;`,
        (ids) => [ids],
      ],
      'in an expression': [
        `select customer_id, item || ? as x from shop_order where customer_id = any(?) and item like ? || '%' order by ?::int;`,
        (ids) => ['a', ids, 'r', 1],
      ],
    };
    for (const [title, [sql, bindings]] of Object.entries(cases)) {
      it(`${title}: finds the columns, and the id among the parameters`, async () => {
        declare(sql, bindings);
        const report = await check();
        expect(summary(report)).to.satisfy(
          (lines: string[]) =>
            lines.length === 1 &&
            /^gap table not watched: shop_order \(.*customer_id, (product_id, )?item\)$/.test(lines[0]!),
          JSON.stringify(summary(report)),
        );
        expect(report.migration).to.include(`.bump({ customer: 'customer_id' })`);
      });
    }
  });

  describe('of routes', () => {
    const sentences = async (sql: string, bindings?: (ids: number[]) => readonly unknown[]) => {
      declare(sql, bindings);
      const { proposals } = await check();
      return Object.fromEntries(proposals.map(({ table, sentence, open }) => [table, { sentence, open }]));
    };

    it('bumps both sides of a table that is joined with itself', async () => {
      await db.raw('create table person (id int primary key, boss_id int, customer_id int, name text)');
      const { person } = await sentences(
        'select p.customer_id, b.name from person p join person b on b.id = p.boss_id where p.customer_id = any(?)',
      );
      expect(person!.sentence)
        .to.include(`.bump({ customer: 'customer_id' })`)
        .and.include(`.lookUp('person', { boss_id: 'id' })\n  .bump({ customer: 'customer_id' })`);
    });

    it('derive nothing from a condition of an outer join that does not restrict the row', async () => {
      const { shop_order, customer } = await sentences(
        'select c.id as customer_id, o.item from shop_order o left join customer c on c.id = o.customer_id and c.id = any(?)',
      );
      expect(shop_order!.open.join()).to.include('FILL IN');
      expect(customer!.sentence).to.include(`.bump({ customer: 'id' })`);
    });

    it('derive nothing from a condition outside a LIMIT', async () => {
      const { shop_order } = await sentences(
        'select customer_id, item from (select * from shop_order order by id limit 10) as first where customer_id = any(?)',
      );
      expect(shop_order!.open.join()).to.include('FILL IN');
    });

    it('derive nothing from one branch of OR', async () => {
      const { shop_order } = await sentences(
        `select customer_id, item from shop_order where customer_id = any(?) or item = 'free'`,
      );
      expect(shop_order!.open.join()).to.include('FILL IN');
    });

    it('follow NOT IN and NOT EXISTS into their subqueries', async () => {
      await db.raw('create table blocked (customer_id int); create table muted (who int)');
      const { blocked, muted } = await sentences(
        `select customer_id from shop_order o where customer_id = any(?) and customer_id not in (select customer_id from blocked)
         and not exists (select from muted where muted.who = o.customer_id)`,
      );
      expect(blocked!.sentence).to.include(`.bump({ customer: 'customer_id' })`);
      expect(muted!.sentence).to.include(`.bump({ customer: 'who' })`);
    });

    it('follow EXISTS and IN as joins, and derive nothing from them where they are no condition', async () => {
      await db.raw('create table link (customer_id int, product_id int)');
      const { product } = await sentences(
        `select 42 as customer_id, p.name from product p
         where exists (select from link where link.product_id = p.id and link.customer_id = any(?))`,
      );
      expect(product!.sentence).to.include(
        `.lookUp('link', { product_id: 'id' })\n  .bump({ customer: 'customer_id' })`,
      );
      cache = lendKnexCache(db);
      const others = await sentences(
        `select 42 as customer_id, p.name from product p
         where exists (select count(*) from link where link.product_id = p.id and link.customer_id = any(?))`,
      );
      expect(others['product']!.open.join()).to.include('FILL IN');
      expect(others['link']!.sentence).to.include(`.bump({ customer: 'customer_id' })`);
    });

    it('close equalities transitively: columns that are equal to a third one are equal', async () => {
      await db.raw(`
        create table team (id int primary key, name text);
        create table membership (team_id int references team, customer_id int);
        create table rule (id int primary key, team_id int references team, text text)`);
      declare(`select m.customer_id, r.text from membership m join team t on t.id = m.team_id
        join rule r on r.team_id = t.id where m.customer_id = any(?)`);
      expect((await check()).migration).to.include(
        `.lookUp('membership', { team_id: 'team_id' })\n    .bump({ customer: 'customer_id' })`,
      );
      await watch('membership').bump({ customer: 'customer_id' }).install();
      for (const [table, column] of [
        ['team', 'id'],
        ['rule', 'team_id'],
      ] as const) {
        await watch(table).lookUp('membership', { team_id: column }).bump({ customer: 'customer_id' }).install();
      }
      const report = await check();
      expect(report.ok).to.equal(true);
      expect(report.findings.filter(({ kind }) => kind === 'ids not derived')).to.deep.equal([]);
    });

    it('take the condition of an outer join for no equality of the other side', async () => {
      await db.raw('create table left_side (id int, a int); create table optional (a int, customer_id int)');
      const { left_side, optional } = await sentences(
        `select 42 as customer_id, l.id from left_side l left join optional p on p.a = l.a and p.customer_id = any(?)`,
      );
      expect(left_side!.open.join()).to.include('FILL IN');
      expect(optional!.sentence).to.include(`.bump({ customer: 'customer_id' })`);
    });

    it('derive from a member of UNION nothing for the rows of another one', async () => {
      await db.raw(`create table wish (customer_id int, product_id int); create table basket (product_id int)`);
      const { product, wish, basket } = await sentences(
        `select 42 as customer_id, p.name from product p
         join (select product_id from wish where customer_id = any(?) union select product_id from basket) as u
         on u.product_id = p.id`,
      );
      expect(wish!.sentence).to.include(`.bump({ customer: 'customer_id' })`);
      expect(basket!.open.join()).to.include('FILL IN');
      expect(product!.open.join()).to.include('FILL IN');
    });

    it('take foreign keys for joins between statements, and ask to check', async () => {
      await db.raw(`create table note (id int primary key, order_id int references shop_order, body text)`);
      cache.namespace('customer', integer()).value('notes', {
        load: async ({ customer }, { db }) => {
          const ids = await db('shop_order').where({ customer_id: customer }).pluck('id');
          return db('note').whereIn('order_id', ids).select('body');
        },
      });
      const { proposals } = await check();
      const note = proposals.find(({ table }) => table === 'note')!;
      expect(note.sentence).to.include(
        `.lookUp('shop_order', { id: 'order_id' })\n  .bump({ customer: 'customer_id' })`,
      );
      expect(note.open.join()).to.include('CHECK');
    });
  });

  it('works for a role whose transactions read only by default, and rejects a transaction that does', async () => {
    declare(JOIN);
    await db.transaction(async (trx) => {
      await trx.raw('set transaction read only');
      const error = await rejection(coverage(cache, { db: trx, samples: { customer: 42 } }));
      expect(error.name).to.equal('ConfigurationError');
      expect(error.message)
        .to.include('`db` must be able to make a temporary view')
        .and.include('read-only transaction');
    });
    const reader = knex({
      client: 'pg',
      connection: databaseUrl(`${schemaOf(db)} -c default_transaction_read_only=on`),
      pool: { min: 0, max: 1 },
    });
    try {
      expect((await coverage(cache, { db: reader, samples: { customer: 42 } })).entries[0]!.tables).to.have.length(2);
    } finally {
      await reader.destroy();
    }
  });

  it('rejects samples that are no ids', async () => {
    for (const samples of [undefined, null, 42, [], [42]]) {
      const error = await rejection(coverage(cache, { db, samples } as never));
      expect(error.message).to.include('`samples` must be ids by the names of namespaces and keys');
    }
    declare(JOIN);
    expect((await rejection(coverage(cache, { db, samples: { customer: 'x' } }))).name).to.equal('IdError');
  });

  it('rejects an object that is no cache', async () => {
    const error = await rejection(coverage({}, { db, samples: {} }));
    expect(error.message).to.include('`cache` must be a GenerationalCache');
  });
});
