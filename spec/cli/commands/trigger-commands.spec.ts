import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/index.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { type Env, gencache, serversOf } from '../gencache.js';

describe('gencache triggers', function () {
  this.timeout(60_000);
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    db = await lendDatabase();
    env = serversOf(db);
    cache = uniqueName();
    await installOutbox(db);
    await db.raw('create table item (id int primary key) partition by range (id)');
    await db.raw('create table item_1 partition of item for values from (0) to (10)');
    await onChangeOf(db, 'item', { cache }).bump({ item: 'id' }).install();
  });

  it('check finds nothing where all is well', async () => {
    expect(await gencache(['triggers', 'check'], env)).to.deep.equal({
      code: 0,
      err: '',
      out: 'The triggers are as they were installed.\n',
    });
    expect(await gencache(['triggers', 'check', '--json'], env)).to.deep.equal({ code: 0, err: '', out: '[]\n' });
  });

  it('check tells what was switched off, with what to do, and exits with 1', async () => {
    await db.raw('alter table item_1 disable trigger all');
    const { code, out } = await gencache(['triggers', 'check'], env);
    expect(out)
      .to.include(`${schemaOf(db)}.item`)
      .and.include('is DISABLED')
      .and.include('-> Run `gencache triggers repair`, or call `repairTriggers` in a migration; then bump global.');
    expect(code).to.equal(1);
    const json = await gencache(['triggers', 'check', '--json', '--cache', cache], env);
    expect(JSON.parse(json.out)).to.have.length(4);
    expect(JSON.parse(json.out)[0]).to.include({ cache, problem: 'trigger not enabled as installed' });
    expect(json.code).to.equal(1);
    expect((await gencache(['triggers', 'check', '--cache', uniqueName()], env)).code).to.equal(0);
  });

  it('repair installs on a new partition, and says what is left to do', async () => {
    await db.raw('create table item_2 partition of item for values from (10) to (20)');
    expect((await gencache(['triggers', 'check'], env)).code).to.equal(1);
    const repaired = await gencache(['triggers', 'repair'], env);
    expect(repaired.out)
      .to.include('as they were installed')
      .and.include(`Bump global now: \`gencache bump --cache ${cache}\`.`);
    expect(repaired.code).to.equal(0);
    expect((await gencache(['triggers', 'check'], env)).code).to.equal(0);
    await db.raw('insert into item_2 values (12)');
    expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['item=12']);
    expect((await gencache(['triggers', 'repair'], env)).out).to.not.include('bump');
  });

  it('repair repairs the others of a table that was dropped, and tells how to remove what is left', async () => {
    await db.raw('create table gone (id int primary key)');
    await onChangeOf(db, 'gone', { cache }).bump({ item: 'id' }).install();
    await db.raw('drop table gone; create table item_2 partition of item for values from (10) to (20)');
    const schema = schemaOf(db);
    const repaired = await gencache(['triggers', 'repair'], env);
    expect(repaired.out)
      .to.include(`-> Run \`gencache triggers remove --cache ${cache} --table ${schema}.gone\``)
      .and.not.include('item_2');
    expect(repaired).to.include({ code: 1, err: '' });
    const removed = await gencache(['triggers', 'remove', '--cache', cache, '--table', `${schema}.gone`], env);
    expect(removed).to.deep.equal({ code: 0, err: '', out: `The triggers of ${cache} on ${schema}.gone are gone.\n` });
    expect((await gencache(['triggers', 'check'], env)).code).to.equal(0);
  });

  it('repair tells what is left also where it was refused', async () => {
    await db.raw('alter table item_1 disable trigger all');
    const role = uniqueName('role');
    await db.raw('create role ??', [role]);
    try {
      await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
      await db.raw('grant select on gencache_trigger to ??', [role]);
      const as = { ...env, DATABASE_URL: databaseUrl(`${schemaOf(db)} -c role=${role}`) };
      const { code, out, err } = await gencache(['triggers', 'repair'], as);
      expect(out).to.include('is DISABLED');
      expect(err).to.match(
        new RegExp(
          `^gencache triggers repair failed: PostgreSQL refuses it to the role ${role}: permission denied for `,
        ),
      );
      expect(code).to.equal(1);
    } finally {
      await db.raw('drop owned by ?? cascade', [role]);
      await db.raw('drop role ??', [role]);
    }
  });

  it('remove takes them away from one table, named with or without its schema, and no other', async () => {
    await db.raw('create table other (id int primary key)');
    await onChangeOf(db, 'other', { cache }).bump({ item: 'id' }).install();
    const schema = schemaOf(db);
    const wrong = await gencache(['triggers', 'remove', '--cache', cache, '--table', 'itm'], env);
    expect(wrong.err).to.equal(
      `--table is one that ${cache} has triggers on. This is none: itm. Those it has: ${schema}.item, ${schema}.other.\n`,
    );
    expect(wrong.code).to.equal(1);
    expect((await gencache(['triggers', 'remove', '--cache', cache, '--table', 'item'], env)).code).to.equal(0);
    await db.raw('insert into item values (1)');
    await db.raw('insert into other values (2)');
    expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['item=2']);
  });

  it('check and repair fail where there is no outbox', async () => {
    const empty = serversOf(await lendDatabase());
    for (const command of ['check', 'repair']) {
      const { code, out, err } = await gencache(['triggers', command], empty);
      expect(err).to.match(/^Triggers record into the outbox\. There is none on the search path\./);
      expect({ code, out }).to.deep.equal({ code: 1, out: '' });
    }
  });
});
