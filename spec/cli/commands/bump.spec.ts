import { expect } from 'chai';
import type { Knex } from 'knex';
import { integer, nullable, text, uuid } from '../../../lib/index.js';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { publish } from '../../support/declarations.js';
import { eventually } from '../../support/deferred.js';
import { lendDatabase } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { type Env, gencache, serversOf } from '../gencache.js';
import { describeCommand, type Installation, lendInstallation } from '../installation.js';

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

describeCommand('gencache bump --path', () => {
  let installation: Installation;

  beforeEach(async () => {
    installation = await lendInstallation();
    await publish(installation.db, installation.cache, (cache) => {
      cache.namespace('org', integer()).namespace('env', nullable(text()));
      cache.namespace('flag', uuid());
    });
  });

  const bump = (...paths: string[]) =>
    gencache(['bump', '--cache', installation.cache, ...paths.flatMap((path) => ['--path', path])], installation.env);
  const events = () => installation.db('gencache_outbox').orderBy('seq').pluck('path');

  it('records scopes of declared namespaces, in any spelling that a relay bumps too', async () => {
    const id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
    const { code, err } = await bump(
      'org=7',
      'org=7/env=~',
      'org=-1/env=a%20b',
      `flag=${id}`,
      `flag=${id.toUpperCase()}`,
      'org=007',
    );
    expect({ code, err }).to.deep.equal({ code: 0, err: '' });
    expect(await events()).to.have.length(6);
  });

  it('refuses undeclared namespaces and ids of another kind, says each, and records nothing', async () => {
    const meant = { 'ogr=7': 'org', 'env=a/org=7': 'org/env', 'env=a': 'org/env', 'org=7/enviroment=a': 'org/env' };
    const odd = {
      'org=acme': 'org are of the kind integer',
      'org=~': 'org are of the kind integer',
      'flag=7': 'flag are of the kind uuid',
    };
    const { code, err } = await bump('org=7', ...Object.keys(meant), ...Object.keys(odd));
    const { cache } = installation;
    expect(err.trimEnd().split('\n')).to.deep.equal([
      ...Object.entries(meant).map(
        ([path, name]) =>
          `Nothing was recorded: The cache ${cache} has no namespace ${path.replaceAll(/=[^/]*/g, '')}: it declares flag, org, ` +
          `org/env. Did you mean \`${name}\`? Name declared namespaces, from the root down. If a new release declares it, ` +
          'this ends with its first load.',
      ),
      ...Object.entries(odd).map(
        ([path, ids]) =>
          `Nothing was recorded: No reader of the cache ${cache} can have the scope ${path}: the ids of ${ids}. Write an id of ` +
          'that kind, as keys have it. In a trigger, name the column that has such ids.',
      ),
    ]);
    expect(code).to.equal(1);
    expect(await events()).to.deep.equal([]);
  });

  it('refuses a cache that no application has published, and asks which is meant', async () => {
    await publish(installation.db, 'flags', (cache) => cache.namespace('org', integer()));
    const { code, err } = await gencache(['bump', '--cache', 'flgs'], installation.env);
    expect(err).to.match(
      /^Nothing was recorded: no application has ever published a cache of the name "flgs"; published are: flags, spec_\w+\. Did you mean "flags"\? /,
    );
    expect(code).to.equal(1);
  });
});
