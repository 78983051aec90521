import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Knex } from 'knex';
import type { CoverageReport } from '../../../lib/knex/index.js';
import { runMigration } from '../../knex/coverage/support.js';
import { compiled } from '../../support/compiled.js';
import { type Env, gencache, startGencache } from '../gencache.js';
import { describeCommand, lendInstallation } from '../installation.js';

describeCommand('gencache coverage', () => {
  let db: Knex;
  let env: Env;
  let cache: string;
  const clock = ['--accept', 'clock of customer.orders'];
  const run = (...args: string[]) =>
    startGencache(['coverage', '--module', compiled('spec/programs/shop-coverage.ts'), ...args], {
      ...env,
      NAME: cache,
    }).ended;

  beforeEach(async () => {
    ({ db, env, cache } = await lendInstallation());
    await db.raw(`
      create table product (id int primary key, name text, views int);
      create table shop_order (id int primary key, customer_id int, product_id int references product);
      insert into product values (7, 'tent', 0);
      insert into shop_order values (1, 42, 7)`);
  });

  it('shows what would go unseen, and exits with 1; with the migration that it prints, and 0', async () => {
    const before = await run();
    expect(before.err).to.equal('');
    expect(before.out)
      .to.include(`1 entry of ${cache} reads 2 tables: 2 gaps, 1 unknown.`)
      .and.include('✗ shop_order  customer_id, product_id')
      .and.include('No trigger watches product.')
      .and.include('? The answer of customer.orders changes as time passes (the current date or time)');
    expect(before.code).to.equal(1);
    const { out: migration, code } = await run('--migration');
    expect(code).to.equal(1);
    await runMigration(migration, db);
    expect(await run(...clock)).to.include({ code: 0, err: '' });
    expect((await run()).code).to.equal(1);
  });

  it('prints the report as JSON, for programs', async () => {
    const { out, code } = await run('--json', ...clock);
    const report = JSON.parse(out) as CoverageReport;
    expect(report.findings.map(({ severity, kind, subject }) => `${severity} ${kind}: ${subject}`)).to.deep.equal([
      'note accepted: clock of customer.orders',
      'gap table not watched: shop_order',
      'gap table not watched: product',
    ]);
    expect(report.ok).to.equal(false);
    expect(code).to.equal(1);
  });

  it('refuses a module without a cache, and a file that is no module', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'gencache-')), 'strange.mjs');
    writeFileSync(file, 'export const shop = 1;');
    const strange = await gencache(['coverage', '--module', file], env);
    expect(strange).to.include({ code: 64 });
    expect(strange.err).to.include('must be a module that exports `cache` and `samples`').and.include('exports shop');
    writeFileSync(`${file}.mjs`, 'export const cache = {}, samples = { customer: 42 };');
    const another = await gencache(['coverage', '--module', `${file}.mjs`], env);
    expect(another).to.include({ code: 1 });
    expect(another.err).to.include('`cache` must be a GenerationalCache of this copy of gencache');
    const missing = await gencache(['coverage', '--module', `${file}.gone`], env);
    expect(missing).to.include({ code: 1 });
    expect(missing.err).to.include('gone');
    expect((await gencache(['coverage'], env)).code).to.equal(64);
  });
});
