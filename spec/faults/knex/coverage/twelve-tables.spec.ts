import { expect } from 'chai';
import { integer, text } from '../../../../lib/index.js';
import { coverage } from '../../../../lib/knex/index.js';
import { checkTriggers } from '../../../../lib/knex/triggers/check-triggers.js';
import { lendOutbox } from '../../../support/relay.js';
import { takeScopes } from '../../../knex/triggers/support.js';
import { lendKnexCache, runMigration, summary } from '../../../knex/coverage/support.js';

/** The features of an environment of a project, as a server of feature flags answers them: one query, twelve tables. */
const FEATURES = `
  select e.project_id, e.name as environment, f.name, f.type, f.description, fe.enabled, fe.last_seen_at is not null as used,
    s.name as strategy, s.parameters, s.sort_order,
    (select json_agg(c.* order by c.id) from constraint_of_strategy c where c.strategy_id = s.id) as constraints,
    seg.name as segment, seg.constraints as segment_constraints,
    v.name as variant, v.weight,
    coalesce(tags.names, '{}') as tags, parents.names as parents, t.lifetime_days
  from environment e
  join project p on p.id = e.project_id and not p.archived
  join feature f on f.project_id = p.id and f.archived_at is null
  join feature_type t on t.id = f.type
  join feature_environment fe on fe.feature = f.name and fe.environment = e.name
  left join strategy s on s.feature = f.name and s.environment = e.name and not s.disabled
  left join strategy_segment link on link.strategy_id = s.id
  left join segment seg on seg.id = link.segment_id
  left join variant v on v.feature = f.name and v.environment = e.name
  left join lateral (select array_agg(tag.value) as names from feature_tag tag where tag.feature = f.name) tags on true
  left join (
    select d.child, array_agg(d.parent) as names from dependency d group by d.child
  ) as parents on parents.child = f.name
  where (e.project_id, e.name) in (select * from unnest(?::int[], ?::text[]))
  order by f.name, s.sort_order`;

const SCHEMA = `
  create table project (id int primary key, name text, archived boolean not null default false, health int);
  create table environment (project_id int references project, name text, type text, primary key (project_id, name));
  create table feature_type (id text primary key, name text, lifetime_days int);
  create table feature (name text primary key, project_id int references project, type text references feature_type,
    description text, archived_at timestamptz, created_at timestamptz default now());
  create table feature_environment (feature text references feature, environment text, enabled boolean not null default true,
    last_seen_at timestamptz, primary key (feature, environment));
  create table strategy (id int primary key, feature text references feature, environment text, name text, parameters jsonb,
    sort_order int not null default 0, disabled boolean not null default false, created_at timestamptz default now());
  create table constraint_of_strategy (id int primary key, strategy_id int references strategy, field text);
  create table segment (id int primary key, name text, constraints jsonb, description text);
  create table strategy_segment (strategy_id int references strategy, segment_id int references segment, created_at timestamptz default now(), primary key (strategy_id, segment_id));
  create table variant (id int primary key, feature text references feature, environment text, name text, weight int, updated_at timestamptz);
  create table feature_tag (feature text references feature, value text, primary key (feature, value));
  create table dependency (child text references feature, parent text references feature, primary key (child, parent));
  insert into project (id, name) values (1, 'one'), (2, 'two');
  insert into environment values (1, 'prod', 'p'), (2, 'dev', 'd');
  insert into feature_type values ('release', 'Release', 40);
  insert into feature (name, project_id, type) values ('dark', 1, 'release'), ('light', 2, 'release');
  insert into feature_environment values ('dark', 'prod'), ('light', 'dev');
  insert into strategy (id, feature, environment, name) values (5, 'dark', 'prod', 'gradual'), (6, 'light', 'dev', 'default');
  insert into constraint_of_strategy values (50, 5, 'user');
  insert into segment values (9, 'beta', '[]', 'testers');
  insert into strategy_segment values (5, 9);
  insert into variant values (3, 'dark', 'prod', 'blue', 100);
  insert into feature_tag values ('dark', 'ui');
  insert into dependency values ('dark', 'light');`;

const TABLES = [...SCHEMA.matchAll(/create table (\w+)/g)].map(([, table]) => table!);

/** A change of each table that the entry of project 1 and its environment prod must see. */
const CHANGES = [
  `update project set archived = true where id = 1`,
  `update environment set name = 'production' where project_id = 1`,
  `update feature_type set lifetime_days = 7`,
  `update feature set description = 'x' where name = 'dark'`,
  `update feature_environment set enabled = false where feature = 'dark'`,
  `update strategy set parameters = '{}' where id = 5`,
  `insert into constraint_of_strategy values (51, 5, 'tenant')`,
  `update segment set constraints = '[1]' where id = 9`,
  `delete from strategy_segment where strategy_id = 5`,
  `update variant set weight = 1 where id = 3`,
  `insert into feature_tag values ('dark', 'beta')`,
  `delete from dependency where child = 'dark'`,
];

describe('coverage of a query of twelve tables', () => {
  it('proposes the whole migration, after which each change is seen', async () => {
    expect(TABLES).to.have.length(12);
    const db = await lendOutbox();
    await db.raw(SCHEMA);
    const cache = lendKnexCache(db);
    cache
      .namespace('project', integer())
      .namespace('environment', text())
      .list('features', {
        load: async (ids, { db }) => {
          const bindings = [ids.map(({ project }) => project), ids.map(({ environment }) => environment)];
          return (await db.raw<{ rows: { project_id: number; environment: string }[] }>(FEATURES, bindings as never))
            .rows;
        },
        by: (row) => ({ project: row.project_id, environment: row.environment }),
      });
    const check = () => coverage(cache, { db, samples: { project: 1, environment: 'prod' } });

    const before = await check();
    if (process.env['SHOW']) console.log(before.text);
    expect(before.proposals.map(({ table }) => table)).to.have.members(TABLES);
    expect(summary(before, ['unknown'])).to.deep.equal([]);
    expect(before.proposals.flatMap(({ open }) => open)).to.deep.equal([]);
    expect(
      before.proposals
        .find(({ table }) => table === 'segment')!
        .sentence.split('\n')
        .slice(1),
    ).to.deep.equal([
      `  .lookUp('strategy_segment', { segment_id: 'id' })`,
      `  .thenLookUp('strategy', { id: 'strategy_id' })`,
      `  .thenLookUp('feature', { name: 'feature' })`,
      `  .bump({ project: 'project_id', environment: lookedUp('strategy', 'environment') })`,
      '  .install();',
    ]);
    await runMigration(before.migration, db);

    const after = await check();
    expect(summary(after, ['gap', 'unknown', 'note'])).to.deep.equal([]);
    expect(after.ok).to.equal(true);
    expect(await checkTriggers(db)).to.deep.equal([]);
    const noisy = [
      `update project set health = 1`,
      `update segment set description = 'y'`,
      `update strategy set created_at = now()`,
    ];
    for (const change of noisy) {
      await db.raw(change);
      expect(await takeScopes(db), change).to.deep.equal([]);
    }
    for (const change of CHANGES) {
      await db.raw(change);
      const scopes = await takeScopes(db);
      const seen = scopes.some((path) => ['project=1', 'project=1/environment=prod'].includes(path));
      expect(seen, `${change} bumps ${scopes.join(', ') || 'nothing'}`).to.equal(true);
    }
  });
});
