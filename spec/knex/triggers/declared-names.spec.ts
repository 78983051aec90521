/** Triggers are compared with what applications publish: a typo bumps what no reader uses, and is silent otherwise. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { integer, nullable, text, uuid } from '../../../lib/index.js';
import { type ChangeOptions, onChangeOf } from '../../../lib/knex/index.js';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { age, type DeclaredCache, publish } from '../../support/declarations.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';

describe('triggers, compared with what is published,', () => {
  let db: Knex;
  let at: string;
  /** What an installation writes into Knex's log. */
  let log: string[];

  beforeEach(async () => {
    db = await lendOutbox();
    at = schemaOf(db);
    log = [];
    const { logger } = db.client as { logger: { warn(message: string): void } };
    logger.warn = (message) => void log.push(message);
    await db.raw(`
      create type colour as enum ('red');
      create table flag (id int primary key, org_id bigint, env_id text, key uuid, slug text, colour colour);
      create table segment (id int primary key, org text, flag_id int)`);
  });

  const flags = (cache: DeclaredCache) => {
    const orgs = cache.namespace('org', integer());
    orgs.namespace('env', nullable(text()));
    cache.namespace('flag', uuid());
  };
  const install = (ids: Record<string, string>, options: Partial<ChangeOptions> = {}, own = db) =>
    onChangeOf(own, 'flag', { cache: 'flags', ...options })
      .bump(ids)
      .install();
  const problems = async () =>
    (await checkTriggers(db)).map(
      ({ severity, problem, message, remedy }) => `${severity}, ${problem}: ${message} ${remedy}`,
    );

  const IF_NEW =
    'Name declared namespaces, from the root down. If a new release declares it, this ends with its first load.';
  const HAS = 'it declares flag, org, org/env.';

  it('are sound with declared namespaces, columns of their kinds, and global', async () => {
    await publish(db, 'flags', flags);
    await install({ org: 'org_id', env: 'env_id' }, { truncate: 'org=7/env=~' });
    await install({ flag: 'key' }, { name: 'by key' });
    await install({}, { name: 'global' });
    expect(await problems()).to.deep.equal([]);
    expect(log).to.deep.equal([]);
  });

  it('install before any application has published, without a warning or a problem', async () => {
    await install({ ogr: 'org_id' });
    expect(log).to.deep.equal([]);
    expect(await problems()).to.deep.equal([]);
  });

  for (const [what, ids, fault, meant] of [
    ['a misspelt namespace', { ogr: 'org_id' }, 'ogr', 'org'],
    ['a misspelt namespace below another', { org: 'org_id', enviroment: 'env_id' }, 'org/enviroment', 'org/env'],
    ['the wrong order', { env: 'env_id', org: 'org_id' }, 'env/org', 'org/env'],
    ['a namespace without the one above it', { env: 'env_id' }, 'env', 'org/env'],
    ['a namespace that no name is near', { customer: 'org_id' }, 'customer', undefined],
  ] as const) {
    it(`name ${what}: an installation warns, and the check reports it`, async () => {
      await publish(db, 'flags', flags);
      await install(ids);
      const question = meant === undefined ? '' : `Did you mean \`${meant}\`? `;
      const said = `The cache flags has no namespace ${fault}: ${HAS} ${question}${IF_NEW}`;
      expect(log).to.deep.equal([
        `gencache: the triggers on ${at}.flag are installed, but may bump what no reader uses. ${said}`,
      ]);
      // No process has published since the installation: the release that declares it may have yet to run.
      expect(await problems()).to.deep.equal([`warn, namespace unknown: ${said}`]);
      await publish(db, 'flags', flags);
      expect(await problems()).to.deep.equal([`broken, namespace unknown: ${said}`]);
    });
  }

  it('become sound when a process of the new release publishes, beside the old one', async () => {
    await publish(db, 'flags', flags);
    await install({ customer: 'org_id' });
    await publish(db, 'flags', (cache) => (flags(cache), cache.namespace('customer', integer())));
    await publish(db, 'flags', flags);
    expect(await problems()).to.deep.equal([]);
    await db('gencache_declaration')
      .whereRaw(`declaration::text like '%customer%'`)
      .update({
        last_seen_at: db.raw(`now() - interval '4 hours'`),
      });
    expect((await problems()).join()).to.match(/^broken, namespace unknown: The cache flags has no namespace customer/);
  });

  for (const [column, type, ids, kind] of [
    ['org_id', 'bigint', { flag: 'org_id' }, 'uuid'],
    ['colour', 'colour', { flag: 'colour' }, 'uuid'],
    ['key', 'uuid', { org: 'key' }, 'integer'],
  ] as const) {
    it(`name a column of the type ${type} for ${kind}()`, async () => {
      await publish(db, 'flags', flags);
      await install(ids);
      await publish(db, 'flags', flags);
      const [namespace] = Object.keys(ids);
      const said =
        `The ids of ${namespace} are of the kind ${kind} (cache flags), and ${at}.flag.${column} is ` +
        `${type === 'colour' ? `${at}.colour` : type}: no reader has an id that this column can hold. Name the column with ` +
        'the ids of the namespace, or declare the namespace with the kind that the column has.';
      expect(log.map((line) => line.endsWith(said))).to.deep.equal([true]);
      expect(await problems()).to.deep.equal([`broken, column of another kind: ${said}`]);
    });
  }

  it('name a text column for integer(), which may be the wrong one', async () => {
    await publish(db, 'flags', flags);
    await install({ org: 'slug' });
    expect(log).to.have.length(1);
    expect(await problems()).to.deep.equal([
      `warn, column of a wider kind: The ids of org are of the kind integer (cache flags), and ${at}.flag.slug is text: ` +
        'texts of the column that are no such id have no reader. Is it the right column? If it is, and holds such ids alone, ' +
        'this is sound: the spellings of one id are bumped together. A column of the type bigint says so.',
    ]);
  });

  it('name a uuid column for text(), which has several spellings of one id', async () => {
    await publish(db, 'flags', flags);
    await install({ org: 'org_id', env: 'key' });
    expect(await problems()).to.deep.equal([
      `warn, column of a wider kind: The ids of env are of the kind nullable text (cache flags), and ${at}.flag.key is uuid: ` +
        'readers may spell one id of the column in several ways, and a change reaches one spelling. Declare the namespace ' +
        'with the kind of the column (uuid()).',
    ]);
  });

  it('name a column of a looked-up table of another kind', async () => {
    await publish(db, 'flags', flags);
    await onChangeOf(db, 'flag', { cache: 'flags' })
      .lookUp('segment', { flag_id: 'id' })
      .bump({ flag: 'flag_id' })
      .install();
    await onChangeOf(db, 'segment', { cache: 'flags' }).bump({}).install();
    await publish(db, 'flags', flags);
    expect((await problems()).join()).to.include(`${at}.segment.flag_id is integer: no reader`);
  });

  it('name a path for TRUNCATE that no reader has', async () => {
    await publish(db, 'flags', flags);
    await install({ org: 'org_id' }, { truncate: 'org=acme' });
    expect((await problems()).join()).to.include(
      'No reader of the cache flags can have the scope org=acme: the ids of org are of the kind integer.',
    );
  });

  it('name a cache that no application has published', async () => {
    await publish(db, 'flags', flags);
    await publish(db, 'billing', flags);
    await install({ org: 'org_id' }, { cache: 'flgs' });
    const said =
      'No application has ever published a cache of the name "flgs"; published are: billing, flags. Did you mean "flags"? ' +
      'Use the `name` of the GenerationalCache.';
    expect(log.join()).to.match(
      / may bump what no reader uses\. No application has ever published a cache of the name "flgs"/,
    );
    expect(await problems()).to.deep.equal([`broken, cache not published: ${said}`]);
    await age(db, 'flags', 24 * 30);
    expect(await problems()).to.deep.equal([`broken, cache not published: ${said}`]);
  });

  it('install in a migration of a role that may not read what is published', async () => {
    await publish(db, 'flags', flags);
    const role = `owner_${at}`;
    await db.raw('create role ??; grant usage on schema ?? to ??', [role, at, role]);
    try {
      await db.raw('grant create on schema ?? to ??', [at, role]);
      await db.raw('grant select, insert, update on gencache_trigger to ??; alter table flag owner to ??', [
        role,
        role,
      ]);
      const own = lendKnex(databaseUrl(`${at} -c role=${role}`), at);
      await install({ ogr: 'org_id' }, {}, own);
      await db.raw('alter table flag owner to current_user');
    } finally {
      await db.raw('drop owned by ?? cascade; drop role ??', [role, role]);
    }
  });
});
