import { expect } from 'chai';
import type { Knex } from 'knex';
import { integer, text } from '../../../lib/index.js';
import { coverage, expression, onChangeOf } from '../../../lib/knex/index.js';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { lendOutbox } from '../../support/relay.js';
import { takeScopes } from '../triggers/support.js';
import { lendKnexCache, runMigration, summary } from './support.js';

/** A query by the ids of a tenant and a site below it, and changes with the scopes that they must bump. */
interface Shape {
  readonly schema: string;
  readonly query: string;
  /** Parts of the migration. */
  readonly includes?: readonly string[];
  /** Each change bumps one of the scopes. */
  readonly changes: Readonly<Record<string, readonly string[]>>;
}

const SITE = ['tenant=1', 'tenant=1/site=a'];

const SHAPES: Record<string, Shape> = {
  'composite keys, over three lookups': {
    schema: `
      create table site (tenant int, name text, label text, primary key (tenant, name));
      create table shelf (tenant int, no int, site text, primary key (tenant, no));
      create table box (tenant int, shelf int, no int, primary key (tenant, shelf, no));
      create table item (box_tenant int, box_shelf int, box_no int, name text);
      insert into site values (1, 'a', 'A'), (2, 'b', 'B');
      insert into shelf values (1, 5, 'a'), (2, 5, 'b');
      insert into box values (1, 5, 6), (2, 5, 6);
      insert into item values (1, 5, 6, 'x'), (2, 5, 6, 'y');`,
    query: `select site.tenant, site.name as site, item.name, label from site
      join shelf on shelf.tenant = site.tenant and shelf.site = site.name
      join box on box.tenant = shelf.tenant and box.shelf = shelf.no
      join item on (item.box_tenant, item.box_shelf, item.box_no) = (box.tenant, box.shelf, box.no)
      where site.tenant = :tenant and site.name = :site`,
    includes: [`.bump({ tenant: 'box_tenant' })`],
    changes: {
      [`update site set label = 'AA' where tenant = 1`]: SITE,
      [`update shelf set site = 'c' where tenant = 1`]: SITE,
      [`insert into box values (1, 5, 7)`]: SITE,
      [`update item set name = 'z' where box_tenant = 1`]: SITE,
      [`delete from item where box_tenant = 1`]: SITE,
    },
  },
  'a composite key in the middle of a way': {
    schema: `
      create table room (tenant int, name text, floor int, wing int, unique (floor, wing));
      create table wing (floor int, wing int, colour int, primary key (floor, wing));
      create table colour (id int primary key, name text);
      insert into room values (1, 'a', 3, 4), (2, 'b', 3, 5);
      insert into colour values (9, 'red'), (8, 'blue');
      insert into wing values (3, 4, 9), (3, 5, 8);`,
    query: `select room.tenant, room.name as site, colour.name from room
      join wing on wing.floor = room.floor and wing.wing = room.wing join colour on colour.id = wing.colour
      where room.tenant = :tenant and room.name = :site`,
    includes: [
      `.lookUp('wing', { colour: 'id' })`,
      `.thenLookUp('room', { floor: 'floor', wing: 'wing' })`,
      `.bump({ tenant: 'tenant', site: 'name' })`,
    ],
    changes: {
      [`update colour set name = 'rose' where id = 9`]: SITE,
      [`update wing set colour = 8 where wing = 4`]: SITE,
      [`delete from room where tenant = 1`]: SITE,
    },
  },
  'a self join': {
    schema: `
      create table page (id int primary key, parent int, tenant int, site text, title int);
      create table title (id int primary key, text text);
      insert into title values (7, 'seven'), (8, 'eight'), (9, 'nine');
      insert into page values (70, null, null, null, 7), (71, 70, 1, 'a', 8), (72, null, 2, 'b', 9);`,
    query: `select child.tenant, child.site, title.text from page child join page parent on parent.id = child.parent
      join title on title.id = parent.title where child.tenant = :tenant and child.site = :site`,
    includes: [
      `.lookUp('page', { parent: 'id' })\n      .bump({ tenant: 'tenant', site: 'site' })`,
      `.lookUp('page', { title: 'id' })\n      .thenLookUp('page', { parent: 'id' })\n      .bump({ tenant: 'tenant', site: 'site' })`,
    ],
    changes: {
      [`update title set text = 'VII' where id = 7`]: SITE,
      [`update page set title = 9 where id = 70`]: SITE,
      [`update page set parent = null where id = 71`]: SITE,
    },
  },
  'an outer join': {
    schema: `
      create table place (id int primary key, tenant int, name text);
      create table stay (id int primary key, place int, guest int);
      create table guest (id int primary key, name text);
      create table badge (guest int, text text);
      insert into place values (5, 1, 'a'), (6, 2, 'b'); insert into guest values (9, 'Ann'), (8, 'Bob');
      insert into stay values (3, 5, 9), (4, 6, 8); insert into badge values (9, 'gold');`,
    query: `select place.tenant, place.name as site, guest.name, badge.text from place
      left join (stay join guest on guest.id = stay.guest) on stay.place = place.id
      left join badge on badge.guest = guest.id where place.tenant = :tenant and place.name = :site`,
    includes: [
      `.lookUp('stay', { guest: 'id' })\n      .thenLookUp('place', { id: 'place' })`,
      `.lookUp('stay', { guest: 'guest' })\n      .thenLookUp('place', { id: 'place' })`,
    ],
    changes: {
      [`update guest set name = 'Anna' where id = 9`]: SITE,
      [`insert into badge values (9, 'silver')`]: SITE,
      [`update stay set place = 6 where id = 3`]: SITE,
      [`insert into stay values (7, 5, 8)`]: SITE,
      [`update place set name = 'z' where id = 5`]: SITE,
    },
  },
  'two routes of equal length': {
    schema: `
      create table left_way (id int primary key, tenant int, site text);
      create table right_way (id int primary key, tenant int, site text);
      create table fork (id int primary key, left_id int references left_way, right_id int references right_way);
      create table prong (id int primary key, fork int, text text);
      insert into left_way values (3, 1, 'a'), (5, 2, 'b'); insert into right_way values (4, 1, 'a'), (6, 2, 'b');
      insert into fork values (7, 3, 4), (8, 5, 6); insert into prong values (9, 7, 'x'), (10, 8, 'y');`,
    query: `select l.tenant, l.site, prong.text from left_way l join fork on fork.left_id = l.id
      join right_way r on r.id = fork.right_id join prong on prong.fork = fork.id
      where l.tenant = :tenant and l.site = :site and r.tenant = l.tenant and r.site = l.site`,
    includes: [
      `.lookUp('fork', { id: 'fork' })\n      .thenLookUp('left_way', { id: 'left_id' })\n      .bump({ tenant: 'tenant', site: 'site' })`,
    ],
    changes: {
      [`update prong set text = 'xx' where id = 9`]: SITE,
      [`update fork set right_id = 6 where id = 7`]: SITE,
      [`update right_way set site = 'b' where id = 4`]: SITE,
      [`update left_way set site = 'b' where id = 3`]: SITE,
    },
  },
  'a table read twice under two aliases': {
    schema: `
      create table offer (id int primary key, tenant int, site text, buyer int, seller int);
      create table person (id int primary key, address int);
      create table address (id int primary key, town text);
      insert into address values (50, 'Ulm'), (51, 'Bonn'), (52, 'Köln');
      insert into person values (60, 50), (61, 51), (62, 52);
      insert into offer values (70, 1, 'a', 60, 61), (71, 2, 'b', 62, 62);`,
    query: `select offer.tenant, offer.site, there.town, here.town as from_town from offer
      join person buyer on buyer.id = offer.buyer join address there on there.id = buyer.address
      join person seller on seller.id = offer.seller join address here on here.id = seller.address
      where offer.tenant = :tenant and offer.site = :site`,
    includes: [
      `.lookUp('person', { address: 'id' })\n      .thenLookUp('offer', { buyer: 'id' })`,
      `.lookUp('person', { address: 'id' })\n      .thenLookUp('offer', { seller: 'id' })`,
    ],
    changes: {
      [`update address set town = 'Neu-Ulm' where id = 50`]: SITE,
      [`update address set town = 'Bad Bonn' where id = 51`]: SITE,
      [`update person set address = 52 where id = 61`]: SITE,
      [`delete from offer where id = 70`]: SITE,
    },
  },
  'a cascade that deletes every row on the way': {
    schema: `
      create table owner (id int primary key, tenant int, site text);
      create table thing (id int primary key, owner int references owner on delete cascade);
      create table part (id int primary key, thing int references thing on delete cascade, text text);
      insert into owner values (5, 1, 'a'), (6, 2, 'b'); insert into thing values (7, 5), (8, 6);
      insert into part values (9, 7, 'x'), (10, 8, 'y');`,
    query: `select owner.tenant, owner.site, part.text from owner join thing on thing.owner = owner.id
      join part on part.thing = thing.id where owner.tenant = :tenant and owner.site = :site`,
    changes: { [`delete from owner where id = 5`]: SITE },
  },
  'equalities by way of a table that names no id': {
    schema: `
      create table link (tenant int, site text, grp int);
      create table grp (id int primary key, logic text);
      create table cond (id int primary key, grp int, text text);
      insert into link values (1, 'a', 5), (2, 'b', 6); insert into grp values (5, 'any'), (6, 'all');
      insert into cond values (7, 5, 'x'), (8, 6, 'y');`,
    query: `select link.tenant, link.site, cond.text, grp.logic from link join grp on grp.id = link.grp
      join cond on cond.grp = grp.id where link.tenant = :tenant and link.site = :site`,
    includes: [`.lookUp('link', { grp: 'grp' })\n      .bump({ tenant: 'tenant', site: 'site' })`],
    changes: {
      [`update cond set text = 'z' where id = 7`]: SITE,
      [`update grp set logic = 'none' where id = 5`]: SITE,
      [`delete from link where tenant = 1`]: SITE,
    },
  },
};

describe('proposals of coverage', () => {
  async function declared(schema: string, query: string) {
    const db = await lendOutbox();
    await db.raw(schema);
    const cache = lendKnexCache(db);
    cache
      .namespace('tenant', integer())
      .namespace('site', text())
      .value('answer', {
        load: async ({ tenant, site }, { db }) =>
          (await db.raw<{ rows: unknown[] }>(query, { tenant, site } as never)).rows,
      });
    return { db, cache, check: () => coverage(cache, { db, samples: { tenant: 1, site: 'a' } }) };
  }

  async function expectSound(db: Knex, check: () => ReturnType<typeof coverage>) {
    const before = await check();
    if (process.env['SHOW']) console.log(before.migration);
    expect(before.ok).to.equal(false);
    expect(before.proposals.flatMap(({ open }) => open)).to.deep.equal([]);
    await runMigration(before.migration, db);
    const after = await check();
    expect(summary(after, ['gap', 'unknown']), after.text).to.deep.equal([]);
    expect(after.findings.filter(({ kind }) => kind === 'ids not derived')).to.deep.equal([]);
    expect(after.ok).to.equal(true);
    expect(await checkTriggers(db)).to.deep.equal([]);
    return before.migration;
  }

  for (const [title, { schema, query, includes = [], changes }] of Object.entries(SHAPES)) {
    it(`${title}: installed as printed they make coverage sound, and each change is seen`, async () => {
      const { db, check } = await declared(schema, query);
      const migration = await expectSound(db, check);
      for (const part of includes)
        expect(migration.replaceAll(/\n +/g, '\n')).to.include(part.replaceAll(/\n +/g, '\n'));
      for (const [change, scopes] of Object.entries(changes)) {
        const trx = await db.transaction();
        await trx.raw(change);
        await trx.commit();
        const bumped = await takeScopes(db);
        expect(
          bumped.some((scope) => scopes.includes(scope)),
          `${change} bumps ${bumped.join(', ')}`,
        ).to.equal(true);
      }
    });
  }

  it('add a sentence for a table on the way whose installed triggers bump too little', async () => {
    const { schema, query } = SHAPES['a cascade that deletes every row on the way']!;
    const { db, cache, check } = await declared(schema, query);
    const watch = (table: string) => onChangeOf(db, table, { cache: cache.name });
    await watch('owner').bump({ tenant: 'tenant', site: 'site' }).install();
    await watch('thing').bump({ tenant: 'id' }).install();
    const migration = await expectSound(db, check);
    expect(migration.indexOf(`onChangeOf(db, 'thing'`)).to.be.lessThan(migration.indexOf(`onChangeOf(db, 'part'`));
    await db('owner').where({ id: 5 }).delete();
    expect(await takeScopes(db)).to.include('tenant=1/site=a');
  });

  it('add a sentence for a table on the way whose installed triggers the lookup graph can not compare', async () => {
    const { schema, query } = SHAPES['a cascade that deletes every row on the way']!;
    const { db, cache, check } = await declared(schema, query);
    const watch = (table: string) => onChangeOf(db, table, { cache: cache.name });
    await watch('owner').bump({ tenant: 'tenant', site: 'site' }).install();
    await watch('thing')
      .bump({ tenant: expression('owner - 4') })
      .install();
    expect(summary(await check())).to.deep.equal(['gap table not watched: part (thing, text)']);
    const migration = await expectSound(db, check);
    expect(migration).to.include(`.bump({ tenant: expression('owner - 4') })\n    .lookUp('owner', { id: 'owner' })`);
  });

  it('take the next route where a table names the ids in the context of the looking row alone', async () => {
    const { db, check } = await declared(
      `create table farm (id int primary key, tenant int, site text);
       create table field (id int primary key, farm int, tenant int);
       create table crop (id int primary key, field int, text text);
       insert into farm values (5, 1, 'a'), (6, 2, 'b'); insert into field values (7, 5, 1), (8, 6, 2);
       insert into crop values (9, 7, 'rye')`,
      `select farm.tenant, farm.site, crop.text from farm join field on field.farm = farm.id
       left join crop on crop.field = field.id and field.tenant = :tenant where farm.tenant = :tenant and farm.site = :site`,
    );
    const migration = await expectSound(db, check);
    expect(migration).to.include(
      `.lookUp('field', { id: 'field' })\n    .thenLookUp('farm', { id: 'farm' })\n    .bump({ tenant: 'tenant', site: 'site' })`,
    );
    await db('crop').where({ id: 9 }).update({ text: 'oats' });
    expect(await takeScopes(db)).to.deep.equal(['tenant=1/site=a']);
  });

  it('look up a table that bumps everything, where its rows have the ids in the context of the looking row alone', async () => {
    const { db, check } = await declared(
      `create table one (id int primary key, tenant int, site text, other int); create table other (id int primary key, text text);
       insert into one values (1, 1, 'a', 5); insert into other values (5, 'x')`,
      `select one.tenant, one.site, other.text from one left join other on other.id = one.other and one.tenant = :tenant
       where one.site = :site`,
    );
    const { proposals, migration } = await check();
    const open = Object.fromEntries(proposals.map((proposal) => [proposal.table, proposal.open.join()]));
    expect(open['one']).to.include('FILL IN: no equality leads from a column of one');
    expect(proposals.find(({ table }) => table === 'other')!.sentence).to.include(`.lookUp('one', { other: 'id' })`);
    await runMigration(migration, db);
    const after = await check();
    expect(summary(after)).to.deep.equal([]);
    expect(await checkTriggers(db)).to.deep.equal([]);
  });

  it('do not take long where thirty tables compare one column and no table among them has the ids', async () => {
    const tables = Array.from({ length: 30 }, (_, i) => `t${i}`);
    const joined = tables.slice(1).map((table) => `join ${table} on ${table}.x = t0.x`);
    const { check } = await declared(
      `${tables.map((table) => `create table ${table} (x int, text text);`).join('')} create table named (y int, tenant int, site text)`,
      `select named.tenant, named.site from named, t0 ${joined.join(' ')} where named.tenant = :tenant and named.site = :site`,
    );
    const begun = performance.now();
    const { proposals } = await check();
    expect(performance.now() - begun).to.be.lessThan(10_000);
    if (process.env['SHOW']) console.log(performance.now() - begun);
    expect(proposals.filter(({ open }) => open.join().includes('FILL IN'))).to.have.length(30);
  });

  it('name the equality that is missing where no route leads to the ids', async () => {
    const { check } = await declared(
      `create table near (id int primary key, far int); create table beside (near int);
       create table far (id int primary key, tenant int, site text)`,
      `select far.tenant, far.site from near join beside on beside.near = near.id
       left join far on far.id = near.far and far.tenant = :tenant and far.site = :site`,
    );
    const { proposals } = await check();
    const open = Object.fromEntries(proposals.map((proposal) => [proposal.table, proposal.open]));
    expect(open['far']).to.deep.equal([]);
    expect(open['near']).to.deep.equal([
      'FILL IN: no equality leads from a column of near (or beside, which it is joined with) to far.tenant, which has the id of ' +
        'tenant. The query has far.id = near.far, but not for every row of near: it stands on one side of an outer join, in a ' +
        'subquery, or beside a UNION. Until then each change bumps everything.',
    ]);
  });
});
