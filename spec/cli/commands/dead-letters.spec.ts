import { expect } from 'chai';
import type { Knex } from 'knex';
import { uniqueName } from '../../support/redis.js';
import { type Env, gencache } from '../gencache.js';
import { describeCommand, lendInstallation } from '../installation.js';
import { insertDeadLetter } from './insert-dead-letter.js';

describeCommand('gencache dead-letters', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    ({ db, env, cache } = await lendInstallation());
  });

  it('list shows each dead letter with the scope bumped instead, and the reason', async () => {
    expect(await gencache(['dead-letters', 'list'], env)).to.deep.equal({
      code: 0,
      err: '',
      out: 'There are no dead letters.\n',
    });
    await insertDeadLetter(db, cache);
    await insertDeadLetter(db, uniqueName('other'));
    const all = await gencache(['dead-letters', 'list'], env);
    expect(all.out.trim().split('\n')).to.have.length(3);
    const own = await gencache(['dead-letters', 'list', '--cache', cache], env);
    expect(own.out).to.match(new RegExp(`${cache} .* psql +item UPDATE +global +Its path is invalid\\.\n$`));
    const [row] = JSON.parse((await gencache(['dead-letters', 'list', '--cache', cache, '--json'], env)).out);
    expect(row).to.include({
      cache,
      path: '!',
      source: 'item',
      operation: 'UPDATE',
      bumped: '',
      lookup: 'gencache_lookup_1',
    });
    expect(row.args).to.deep.equal([{ id: 1 }]);
  });

  it('list hides a password in a reason', async () => {
    await insertDeadLetter(db, cache, 'dblink: could not connect to postgres://shop:s3cr3t@replica/shop');
    for (const format of [[], ['--json']]) {
      const { out } = await gencache(['dead-letters', 'list', ...format], env);
      expect(out).to.include('could not connect to postgres://***@replica/shop').and.not.include('s3cr3t');
    }
  });

  it('retry moves the dead letters of one cache back into the outbox, once', async () => {
    const other = uniqueName('other');
    await insertDeadLetter(db, cache);
    await insertDeadLetter(db, other);
    const retried = await gencache(['dead-letters', 'retry', '--cache', cache], env);
    expect(retried).to.deep.equal({ code: 0, err: '', out: 'Dead letters moved back into the outbox: 1.\n' });
    const events = await db('gencache_outbox').select();
    expect(events).to.have.length(1);
    expect(events[0]).to.include({
      cache,
      path: '!',
      source: 'item',
      operation: 'UPDATE',
      application: 'psql',
      held_by: null,
    });
    expect(events[0]).to.include({ lookup: 'gencache_lookup_1' });
    // A new transaction: relays do not look at the old one any more.
    expect(Number(events[0].xid)).to.be.above(3);
    expect(await db('gencache_dead_letter').pluck('cache')).to.deep.equal([other]);
    const again = await gencache(['dead-letters', 'retry', '--cache', cache], env);
    expect(again.out).to.equal('There are no dead letters.\n');
    expect(await db('gencache_outbox').select()).to.have.length(1);
  });

  it('list fails without an outbox', async () => {
    const { code, err } = await gencache(['dead-letters', 'list', '--schema', 'pg_temp'], env);
    expect(err).to.match(
      /^gencache dead-letters list failed: There is no outbox of this release: .*relation .* does not exist\. Run `gencache outbox install`/,
    );
    expect(code).to.equal(1);
  });
});
