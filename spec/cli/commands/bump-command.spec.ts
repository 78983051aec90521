import { expect } from 'chai';
import type { Knex } from 'knex';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { lendDatabase } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { type Env, gencache, serversOf } from '../gencache.js';

describe('gencache bump', function () {
  this.timeout(60_000);
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    db = await lendOutbox();
    env = { ...serversOf(db), REDIS_URL: undefined };
    cache = uniqueName('a-shop.');
  });

  const recorded = () => db('gencache_outbox').orderBy('seq').select('cache', 'path', 'source', 'operation');

  it('records a bump of everything, needs no Redis, and says who bumps', async () => {
    expect(await gencache(['bump', '--cache', cache], env)).to.deep.equal({
      code: 0,
      err: '',
      out: `Recorded for ${cache}: global. No relay has ever run for it: \`gencache relay --cache ${cache}\`.\n`,
    });
    expect(await recorded()).to.deep.equal([{ cache, path: '', source: 'gencache bump', operation: 'bump' }]);
  });

  it('records scopes, which a relay bumps, and no other', async () => {
    const redis = lendRedis();
    const key = (path: string) => generationKey(keyPrefix(cache), path);
    for (const path of ['item=1', 'item=2', 'item=a%20b/shelf=~'])
      await redis.set(key(path), `7.${'a'.repeat(16)}`, 'PX', 60_000);
    const relay = lendRelay({ db, cache, pollMs: 20 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    const paths = ['item=1', 'item=a%20b/shelf=~', 'item=1'].flatMap((path) => ['--path', path]);
    const { out, code } = await gencache(['bump', '--cache', cache, ...paths], env);
    expect(out).to.equal(`Recorded for ${cache}: item=1, item=a%20b/shelf=~. A relay that runs bumps it now.\n`);
    expect(code).to.equal(0);
    await eventually(async () => expect(await recorded()).to.deep.equal([]));
    expect(await redis.get(key('item=1'))).to.match(/^8\./);
    expect(await redis.get(key('item=a%20b/shelf=~'))).to.match(/^8\./);
    expect(await redis.get(key('item=2'))).to.match(/^7\./);
  });

  it('refuses what is no scope', async () => {
    for (const path of ['item', 'item:1', 'item=1/', 'item=a b', 'Item=1']) {
      const { code, err } = await gencache(['bump', '--cache', cache, '--path', path], env);
      expect(err).to.match(/^--path is a scope, namespaces with their ids, root first: /);
      expect(code).to.equal(64);
    }
    expect(await recorded()).to.deep.equal([]);
  });

  it('refuses a name that nobody has, where others are', async () => {
    await db('gencache_outbox').insert({ cache: 'shop', path: '', source: 'item', operation: 'UPDATE' });
    const { code, err } = await gencache(['bump', '--cache', cache], env);
    expect(err).to.equal(
      `A bump is recorded for a cache that relays know: no trigger and no event here has the name ${cache}; there are ` +
        'shop. See whether --cache is the `name` of the GenerationalCache.\n',
    );
    expect(code).to.equal(1);
    expect(await recorded()).to.have.length(1);
    await db('gencache_authority').insert({ cache, redis: 'x', postgres: 'y' });
    expect((await gencache(['bump', '--cache', cache], env)).code).to.equal(0);
  });

  it('fails where there is no outbox', async () => {
    const { code, err } = await gencache(['bump', '--cache', cache], serversOf(await lendDatabase()));
    expect(err).to.match(
      /^gencache bump failed: This works on an outbox of this release: relation "gencache_\w+" does not exist\. Run `gencache outbox install`, or say where it is: --schema\.\n$/,
    );
    expect(code).to.equal(1);
  });
});
