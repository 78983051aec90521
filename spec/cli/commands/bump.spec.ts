import { expect } from 'chai';
import type { Knex } from 'knex';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { lendDatabase } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { type Env, gencache, serversOf } from '../gencache.js';
import { describeCommand, lendInstallation } from '../installation.js';

describeCommand('gencache bump', () => {
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    ({ db, env } = await lendInstallation());
    env = { ...env, REDIS_URL: undefined };
    cache = uniqueName('a-shop.');
  });

  const recorded = () => db('gencache_outbox').orderBy('seq').select('cache', 'path', 'source', 'operation');

  it('records a bump of global without a Redis, and names the relay to run', async () => {
    expect(await gencache(['bump', '--cache', cache], env)).to.deep.equal({
      code: 0,
      err: '',
      out:
        `Bumps recorded for ${cache}: global. No relay has ever run for this cache: ` +
        `run \`gencache relay --cache ${cache}\`.\n`,
    });
    expect(await recorded()).to.deep.equal([{ cache, path: '', source: 'gencache bump', operation: 'bump' }]);
  });

  it('records bumps of the given scopes, which a relay bumps and no others', async () => {
    const redis = lendRedis();
    const key = (path: string) => generationKey(keyPrefix(cache), path);
    for (const path of ['item=1', 'item=2', 'item=a%20b/shelf=~'])
      await redis.set(key(path), `7.${'a'.repeat(16)}`, 'PX', 60_000);
    const relay = lendRelay({ db, cache, pollMs: 20 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    const paths = ['item=1', 'item=a%20b/shelf=~', 'item=1'].flatMap((path) => ['--path', path]);
    const { out, code } = await gencache(['bump', '--cache', cache, ...paths], env);
    expect(out).to.equal(`Bumps recorded for ${cache}: item=1, item=a%20b/shelf=~. A running relay bumps them now.\n`);
    expect(code).to.equal(0);
    await eventually(async () => expect(await recorded()).to.deep.equal([]));
    expect(await redis.get(key('item=1'))).to.match(/^8\./);
    expect(await redis.get(key('item=a%20b/shelf=~'))).to.match(/^8\./);
    expect(await redis.get(key('item=2'))).to.match(/^7\./);
  });

  it('rejects a path that is no scope', async () => {
    for (const path of ['item', 'item:1', 'item=1/', 'item=a b', 'Item=1']) {
      const { code, err } = await gencache(['bump', '--cache', cache, '--path', path], env);
      expect(err).to.match(/^--path must be a scope, namespaces with their ids, root first \(.*\), but got '/);
      expect(code).to.equal(64);
    }
    expect(await recorded()).to.deep.equal([]);
  });

  it('refuses a cache name that the outbox does not know, unless a relay has run under it', async () => {
    await db('gencache_outbox').insert({ cache: 'shop', path: '', source: 'item', operation: 'UPDATE' });
    const { code, err } = await gencache(['bump', '--cache', cache], env);
    expect(err).to.equal(
      `Nothing was recorded: no trigger and no event has the cache name "${cache}"; this outbox has: shop. ` +
        'Check that --cache is the `name` of the GenerationalCache.\n',
    );
    expect(code).to.equal(1);
    expect(await recorded()).to.have.length(1);
    await db('gencache_authority').insert({ cache, redis: 'x', postgres: 'y' });
    expect((await gencache(['bump', '--cache', cache], env)).code).to.equal(0);
  });

  it('fails without an outbox', async () => {
    const { code, err } = await gencache(['bump', '--cache', cache], serversOf(await lendDatabase()));
    expect(err).to.match(
      /^gencache bump failed: There is no outbox of this release: relation "gencache_\w+" does not exist\. Run `gencache outbox install`, or name the schema of the outbox by --schema\.\n$/,
    );
    expect(code).to.equal(1);
  });
});
