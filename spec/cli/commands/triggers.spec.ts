import { expect } from 'chai';
import type { Knex } from 'knex';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { type Env, gencache, serversOf } from '../gencache.js';
import { describeCommand, installItemTriggers, lendInstallation, withRole } from '../installation.js';

describeCommand('gencache triggers', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    ({ db, env, cache } = await lendInstallation());
    await installItemTriggers({ db, cache });
  });

  it('check finds no problem with triggers as installed', async () => {
    expect(await gencache(['triggers', 'check'], env)).to.deep.equal({
      code: 0,
      err: '',
      out: 'The triggers are as they were installed.\n',
    });
    expect(await gencache(['triggers', 'check', '--json'], env)).to.deep.equal({ code: 0, err: '', out: '[]\n' });
  });

  it('list shows the watched tables, and what their changes bump', async () => {
    await db.raw('create table part (id int primary key, item_id int, noise text)');
    await onChangeOf(db, 'part', { cache, columns: ['item_id'], operations: ['update'] })
      .lookUp('item', { id: 'item_id' })
      .bump({ item: 'id' })
      .install();
    const { out, code } = await gencache(['triggers', 'list'], env);
    expect(out)
      .to.match(/item +default +insert update delete truncate +any +item=id$/m)
      .and.match(/part +default +update truncate +item_id +item=item.id by item\(id = item_id\)$/m);
    expect(code).to.equal(0);
    const json = JSON.parse((await gencache(['triggers', 'list', '--json', '--cache', cache], env)).out) as object[];
    expect(json).to.have.length(2);
    expect(json[0]).to.include({ cache, table: 'item' });
    const none = await gencache(['triggers', 'list', '--cache', uniqueName()], env);
    expect(none).to.deep.equal({ code: 0, err: '', out: 'No triggers are installed.\n' });
  });

  it('check shows disabled triggers with a remedy, and exits with 1', async () => {
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

  it('repair installs the triggers of a new partition, and asks for a bump of global', async () => {
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
    expect((await gencache(['triggers', 'repair'], env)).out).to.not.match(/bump/i);
  });

  it('repair mends the other tables beside a dropped one, and names the command that removes its rest', async () => {
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
    expect(removed).to.deep.equal({
      code: 0,
      err: '',
      out: `The triggers of the cache "${cache}" on ${schema}.gone are removed.\n`,
    });
    expect((await gencache(['triggers', 'check'], env)).code).to.equal(0);
  });

  it('repair shows the problems that are left when PostgreSQL refuses it', async () => {
    await db.raw('alter table item_1 disable trigger all');
    await withRole({ db, env }, async (role, as) => {
      await db.raw('grant select on gencache_trigger to ??', [role]);
      const { code, out, err } = await gencache(['triggers', 'repair'], as);
      expect(out).to.include('is DISABLED');
      expect(err).to.match(
        new RegExp(`^gencache triggers repair failed: PostgreSQL refused the role ${role}: permission denied for `),
      );
      expect(code).to.equal(1);
    });
  });

  it('remove removes the triggers of the one table named, with or without its schema', async () => {
    await db.raw('create table other (id int primary key)');
    await onChangeOf(db, 'other', { cache }).bump({ item: 'id' }).install();
    const schema = schemaOf(db);
    const wrong = await gencache(['triggers', 'remove', '--cache', cache, '--table', 'itm'], env);
    expect(wrong.err).to.equal(
      `--table must be a table with triggers of the cache "${cache}", but got itm. ` +
        `Its tables with triggers: ${schema}.item, ${schema}.other.\n`,
    );
    expect(wrong.code).to.equal(1);
    expect((await gencache(['triggers', 'remove', '--cache', cache, '--table', 'item'], env)).code).to.equal(0);
    await db.raw('insert into item values (1)');
    await db.raw('insert into other values (2)');
    expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['item=2']);
  });

  it('check and repair fail without an outbox', async () => {
    const empty = serversOf(await lendDatabase());
    for (const command of ['check', 'repair']) {
      const { code, out, err } = await gencache(['triggers', command], empty);
      expect(err).to.match(
        /^There is no outbox of this release on the search path of this connection\. Triggers record there\./,
      );
      expect({ code, out }).to.deep.equal({ code: 1, out: '' });
    }
  });
});
