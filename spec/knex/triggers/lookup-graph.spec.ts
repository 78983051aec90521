/** Which lookups find every scope, whatever other transactions and cascades do (docs/protocol.md, rule 3). */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, text } from '../../../lib/index.js';
import { knexSource } from '../../../lib/knex/index.js';
import { checkTriggers, repairTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { changed, type ChangeOptions, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { schemaOf } from '../../support/postgres.js';
import { lendRedis, uniqueName } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { READ_DEADLINE_MS } from '../../support/cache.js';
import { takeScopes } from './support.js';

describe('the graph of lookups', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    cache = uniqueName();
    db = await lendOutbox();
    await db.raw(`
      create table project (id int primary key, tenant text);
      create table feature (
        id int primary key, project_id int references project on delete cascade, name text);
      create table strategy (
        id int primary key, feature_id int references feature on delete cascade, environment text);
      insert into project values (1, 'acme');
      insert into feature values (1, 1, 'dark mode');
      insert into strategy values (1, 1, 'production')`);
  });

  type Options = Partial<ChangeOptions>;
  const on = (table: string, options: Options = {}) => onChangeOf(db, table, { cache, ...options });
  const featureFindsStrategies = (options?: Options) =>
    on('feature', options).lookUp('strategy', { feature_id: 'id' }).bump({ environment: 'environment' });
  const strategyFindsFeatures = (options?: Options) =>
    on('strategy', options)
      .lookUp('feature', { id: 'feature_id' })
      .bump({ environment: changed('environment') });
  const strategyNamesItself = (options?: Options) => on('strategy', options).bump({ environment: 'environment' });
  const problems = async () =>
    (await checkTriggers(db)).map(({ table, problem }) => `${table.split('.').at(-1)}: ${problem}`);

  /** Two tables that look up each other: an installation refuses that, the removal of a third definition leaves it. */
  async function installCycle(): Promise<void> {
    await strategyNamesItself({ name: 'own' }).install();
    await featureFindsStrategies().install();
    await strategyFindsFeatures().install();
    await removeTriggers(db, 'strategy', { cache, name: 'own' });
  }

  describe('on a cascade that deletes the rows of both tables', () => {
    function openFeatures() {
      const store = redisStore(lendRedis());
      const own = new GenerationalCache({
        name: cache,
        store,
        source: knexSource(db),
        readDeadlineMs: READ_DEADLINE_MS,
      });
      lend({ what: 'a cache', close: () => own.close() });
      const features = own.namespace('environment', text()).list('features', {
        async load(ids) {
          const environments = ids.map(({ environment }) => environment);
          const { rows } = await db.raw<{ rows: { environment: string; name: string }[] }>(
            `select environment, name from strategy join feature on feature.id = feature_id
             where environment = any(?)`,
            [environments as unknown as string],
          );
          return rows;
        },
        by: ({ environment }) => ({ environment }),
        value: ({ name }) => name,
      });
      return async () => {
        const names = await features.fetch({ environment: 'production' });
        await own.settled();
        return names;
      };
    }

    async function relayed(): Promise<void> {
      await eventually(async () => expect(await db('gencache_outbox').pluck('path')).to.deep.equal([]));
    }

    async function afterTheCascade(): Promise<readonly string[]> {
      const relay = lendRelay({ db, cache });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      const read = openFeatures();
      expect(await read()).to.deep.equal(['dark mode']);
      await db('project').where({ id: 1 }).delete();
      await relayed();
      expect(relay.status.failures).to.equal(0);
      return read();
    }

    it('readers hit the old value where each table looks up the other: no event finds a scope', async () => {
      await installCycle();
      expect(await afterTheCascade()).to.deep.equal(['dark mode']);
      expect(await problems()).to.deep.equal(['feature: lookup cycle', 'strategy: lookup cycle']);
    });

    it('readers get the new value where the looked-up table names the scope by its own columns', async () => {
      await strategyNamesItself().install();
      await featureFindsStrategies().install();
      expect(await problems()).to.deep.equal([]);
      expect(await afterTheCascade()).to.deep.equal([]);
    });
  });

  describe('an installation refuses', () => {
    const CYCLE =
      'SCHEMA.feature -> SCHEMA.strategy -> SCHEMA.feature. Where one transaction, or a cascade, changes or deletes rows of ' +
      'all of them, no lookup finds the others, and nothing is bumped. Let the table bump by its own columns, for all ' +
      "operations: add `.bump({ environment: 'environment' })` to the triggers of SCHEMA.strategy.";
    const END = 'A lookup misses rows that are changed or deleted by then, unless these rows bump for themselves. ';

    async function refusal(install: { install(): Promise<void> }): Promise<string> {
      const before = await checkTriggers(db);
      const error = await rejection(install.install());
      expect(error).to.include({ name: 'ConfigurationError' });
      expect(await checkTriggers(db)).to.deep.equal(before);
      return error.message.replaceAll(schemaOf(db), 'SCHEMA').replaceAll(cache, 'CACHE');
    }

    it('the second of two tables that look up each other', async () => {
      await featureFindsStrategies().install();
      expect(await problems()).to.deep.equal(['feature: looked-up table not watched']);
      expect(await refusal(strategyFindsFeatures())).to.equal(
        'The lookups go in a circle: SCHEMA.strategy -> SCHEMA.feature -> SCHEMA.strategy. Where one transaction, or a ' +
          'cascade, changes or deletes rows of all of them, no lookup finds the others, and nothing is bumped. Let the ' +
          'changed table bump by its own columns, for all operations: ' +
          "add `.bump({ environment: 'environment' })` to the triggers of SCHEMA.strategy.",
      );
    });

    it('the first of them, too', async () => {
      await strategyFindsFeatures().install();
      expect(await refusal(featureFindsStrategies())).to.equal(`The lookups go in a circle: ${CYCLE}`);
    });

    it('a table that looks up itself', async () => {
      const self = on('strategy').lookUp('strategy', { feature_id: 'feature_id' }).bump({ environment: 'environment' });
      expect(await refusal(self)).to.match(/^The lookups go in a circle: SCHEMA\.strategy -> SCHEMA\.strategy\. /);
      await on('strategy')
        .bump({ environment: 'environment' })
        .lookUp('strategy', { feature_id: 'feature_id' })
        .bump({ environment: 'environment' })
        .install();
      expect(await problems()).to.deep.equal([]);
    });

    it('a lookup of a table that bumps another namespace', async () => {
      await on('strategy').bump({ feature: 'feature_id' }).install();
      expect(await refusal(featureFindsStrategies())).to.equal(
        'The looked-up table SCHEMA.strategy bumps no scope at or above { environment } for insert, update and delete. ' +
          `${END}Let the table bump by its own columns, for all operations: ` +
          "add `.bump({ environment: 'environment' })` to the triggers of SCHEMA.strategy.",
      );
    });

    it('a lookup of a table that bumps the namespace of another column', async () => {
      await db.raw('alter table strategy add old_environment text');
      await on('strategy').bump({ environment: 'old_environment' }).install();
      expect(await refusal(featureFindsStrategies())).to.match(/bumps no scope at or above \{ environment \}/);
    });

    it('a bump below the scope that the lookup finds', async () => {
      await on('strategy').bump({ environment: 'environment', feature: 'feature_id' }).install();
      expect(await refusal(featureFindsStrategies())).to.match(/bumps no scope at or above \{ environment \}/);
    });

    it('triggers of a looked-up table that put another bump in the place of the right one', async () => {
      await strategyNamesItself().install();
      await featureFindsStrategies().install();
      expect(await refusal(on('strategy').bump({ feature: 'feature_id' }))).to.match(
        /^With these triggers a lookup of SCHEMA\.feature is wrong\. The looked-up table SCHEMA\.strategy bumps no scope/,
      );
    });

    it('a lookup whose path begins with a column of the changed row, which then bumps by its own columns', async () => {
      await on('project').bump({ project: 'id' }).install();
      const message = await refusal(
        on('feature')
          .lookUp('project', { id: 'project_id' })
          .bump({ name: changed('name'), tenant: 'tenant' }),
      );
      expect(message).to.match(
        /project bumps no scope at or above \{ name, tenant \} for insert, update and delete\. /,
      );
      expect(message).to.include(
        "Let the changed table bump by its own columns, for all operations: add `.bump({ name: 'name' })` to the " +
          'triggers of SCHEMA.feature, ',
      );
      expect(message).to.include("and `.lookUp('feature', { project_id: 'id' }).bump({ name: 'name' })` to those of");
      await on('feature').bump({ name: 'name' }).install();
      await on('project').lookUp('feature', { project_id: 'id' }).bump({ name: 'name' }).install();
      await on('feature')
        .bump({ name: 'name' })
        .lookUp('project', { id: 'project_id' })
        .bump({ name: changed('name'), tenant: 'tenant' })
        .install();
      expect(await problems()).to.deep.equal([]);
    });
  });

  describe('a check finds sound', () => {
    it('a lookup whose table bumps a scope above, by a column that the lookup compares', async () => {
      await on('strategy').bump({ feature: 'feature_id' }).install();
      await on('feature')
        .lookUp('strategy', { feature_id: 'id' })
        .bump({ feature: changed('id'), environment: 'environment' })
        .install();
      expect(await problems()).to.deep.equal([]);
    });

    it('a chain of lookups that ends at a table with a bump by its own columns', async () => {
      await db.raw('alter table feature add environment text; alter table project add environment text');
      await on('project').bump({ environment: 'environment' }).install();
      await on('feature', { name: 'end' }).bump({ environment: 'environment' }).install();
      await on('feature', { name: 'up' })
        .lookUp('project', { id: 'project_id' })
        .bump({ environment: 'environment' })
        .install();
      await on('strategy').lookUp('feature', { id: 'feature_id' }).bump({ environment: 'environment' }).install();
      expect(await problems()).to.deep.equal([]);
      await db.raw(`update project set environment = 'p'; update feature set environment = 'f'`);
      await takeScopes(db);
      await db('project').delete();
      expect(await takeScopes(db)).to.deep.equal(['environment=f', 'environment=p']);
    });

    it('two tables that look up each other, beside a bump by own columns on each side of the path', async () => {
      await on('strategy')
        .bump({ environment: 'environment' })
        .lookUp('feature', { id: 'feature_id' })
        .bump({ environment: changed('environment'), feature: 'id' })
        .install();
      await on('feature')
        .lookUp('strategy', { feature_id: 'id' })
        .bump({ environment: 'environment', feature: changed('id') })
        .install();
      expect(await problems()).to.deep.equal([]);
    });
  });

  describe('an INSERT into a looked-up table need not be watched', () => {
    const PROJECT = ['update', 'delete'] as const;
    const lookUpProject = (options?: Options) =>
      on('feature', options).lookUp('project', { id: 'project_id' }).bump({ tenant: 'tenant' });
    const INSERT = ['feature: looked-up table not watched'];

    it('where a foreign key with a cascade leads to it, which a null or another row breaks off', async () => {
      await db.raw(`alter table feature drop constraint feature_project_id_fkey, add constraint feature_project_id_fkey
        foreign key (project_id) references project on delete cascade on update restrict`);
      await on('project', { operations: PROJECT }).bump({ tenant: 'tenant' }).install();
      await lookUpProject().install();
      expect(await problems()).to.deep.equal([]);
      await db.raw(`begin; insert into project values (2, 'new'); update feature set project_id = 2; commit`);
      expect(await takeScopes(db)).to.deep.equal(['tenant=acme', 'tenant=new']);
      await db.raw(`with p as (insert into project values (3, 'newer')) insert into feature values (3, 3, 'x')`);
      expect(await takeScopes(db)).to.deep.equal(['tenant=newer']);
    });

    it('where its key alone names the scope', async () => {
      await on('project', { operations: PROJECT }).bump({ project: 'id' }).install();
      await on('feature').lookUp('project', { id: 'project_id' }).bump({ project: 'id', tenant: 'tenant' }).install();
      expect(await problems()).to.deep.equal([]);
    });

    const needed: Record<string, string> = {
      'without a foreign key': 'alter table feature drop constraint feature_project_id_fkey',
      'with one that is not validated': `alter table feature drop constraint feature_project_id_fkey,
        add foreign key (project_id) references project on delete cascade on update restrict not valid`,
      'with NO ACTION, under which another row may take the place of the first': 'select 1',
      'with one that inheritance children do not have': `
        alter table feature drop constraint feature_project_id_fkey,
        add foreign key (project_id) references project on delete cascade on update restrict;
        create table child () inherits (feature)`,
      'with triggers of the foreign key switched off': `
        alter table feature drop constraint feature_project_id_fkey,
        add foreign key (project_id) references project on delete cascade on update restrict;
        alter table feature disable trigger all`,
    };
    for (const [when, change] of Object.entries(needed)) {
      it(`but must be ${when}`, async () => {
        await db.raw(change);
        await on('project', { operations: PROJECT }).bump({ tenant: 'tenant' }).install();
        await lookUpProject().install();
        expect(await problems()).to.deep.equal(INSERT);
      });
    }

    it('but must be where the referring table does not watch an INSERT of its own, or an UPDATE of the reference', async () => {
      await db.raw(`alter table feature drop constraint feature_project_id_fkey,
        add foreign key (project_id) references project on delete cascade on update restrict`);
      await on('project', { operations: PROJECT }).bump({ tenant: 'tenant' }).install();
      await lookUpProject({ operations: ['update', 'delete'] }).install();
      expect(await problems()).to.deep.equal(INSERT);
      await lookUpProject({ operations: ['insert', 'delete'] }).install();
      expect(await problems()).to.deep.equal(INSERT);
    });

    it('but must be under NO ACTION: one statement replaces a row, and the new one has another scope', async () => {
      await on('project', { operations: PROJECT }).bump({ tenant: 'tenant' }).install();
      await lookUpProject().install();
      await db.raw(`alter table feature drop constraint feature_project_id_fkey,
        add foreign key (project_id) references project deferrable initially deferred`);
      await db.transaction(async (trx) => {
        await trx.raw('delete from project');
        await trx.raw(`insert into project values (1, 'other')`);
      });
      expect(await takeScopes(db)).to.deep.equal(['tenant=acme']);
      expect(await problems()).to.deep.equal(INSERT);
    });
  });

  describe('a check reports', () => {
    it('a circle after a repair, too, with the sentence that mends it', async () => {
      await installCycle();
      await db.raw('alter table strategy disable trigger user');
      const left = await repairTriggers(db);
      expect(left.map(({ problem }) => problem)).to.deep.equal(['lookup cycle', 'lookup cycle']);
      expect(left[0]!.remedy).to.include(`add \`.bump({ environment: 'environment' })\` to`);
      await strategyNamesItself().install();
      expect(await problems()).to.deep.equal([]);
    });

    it('a table that is not watched and has no id of the path, with a bump of everything as the remedy', async () => {
      await on('feature')
        .lookUp('project', { id: 'project_id' })
        .bump({ name: changed('name'), tenant: 'tenant' })
        .install();
      const [problem] = await checkTriggers(db);
      expect(problem).to.include({ problem: 'looked-up table not watched' });
      expect(problem!.remedy.replace(cache, 'CACHE')).to.equal(
        'Its own columns have no id of { name, tenant }, so let it bump everything: ' +
          "`onChangeOf(db, 'project', { cache: 'CACHE' }).bump({}).install()`; or put an id in front that its columns have, " +
          'and declare its namespace above the others.',
      );
    });

    it('each operation that the looked-up table does not watch', async () => {
      await strategyNamesItself({ operations: ['insert'] }).install();
      await featureFindsStrategies().install();
      const [problem] = await checkTriggers(db);
      expect(problem).to.include({ problem: 'looked-up table not watched' });
      expect(problem!.message).to.match(/strategy has no triggers for update and delete\. /);
    });

    it('a looked-up table whose `columns` leave out one by which it is looked up', async () => {
      await strategyNamesItself({ columns: ['environment'] }).install();
      await featureFindsStrategies().install();
      const [problem] = await checkTriggers(db);
      expect(problem).to.include({ problem: 'looked-up table not watched' });
      expect(problem!.message).to.match(/strategy has no triggers for update of feature_id or environment\. /);
      await strategyNamesItself({ columns: ['environment', 'feature_id'] }).install();
      expect(await problems()).to.deep.equal([]);
    });
  });
});
