/** Conditions of bumps, and ids that are expressions of the row. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { checkTriggers, repairTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { changed, type ChangeOptions, expression, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { CACHE as cache, takeEvents, takePaths, takeScopes } from './support.js';

describe('onChangeOf with expressions', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw(`
      create type stage as enum ('draft', 'live');
      create table feature (
        id int primary key, project int, enabled boolean, stage stage, config jsonb not null default '{}', note text);
      create table keyless (id int, project int, enabled boolean)`);
  });

  const on = (table = 'feature', options: Partial<ChangeOptions> = {}) => onChangeOf(db, table, { cache, ...options });
  const rows = (from: number, to: number, enabled: boolean) =>
    db.raw(`insert into feature (id, project, enabled) select i, i, ${enabled} from generate_series(${from}, ${to}) i`);

  describe('as a condition', () => {
    const ways: Record<string, Partial<ChangeOptions>> = {
      'of any column': {},
      'of named columns': { columns: ['note'] },
    };
    for (const [what, options] of Object.entries(ways)) {
      it(`bump for rows that meet it, one or many, and for an UPDATE ${what} if the old or the new row does`, async () => {
        await on('feature', options).bump({ project: 'project' }, { when: 'enabled' }).install();
        await rows(1, 1, false);
        await rows(2, 3, false);
        expect(await takePaths(db)).to.deep.equal([]);
        await rows(4, 4, true);
        await rows(5, 6, true);
        expect(await takePaths(db)).to.deep.equal(['INSERT project=4', 'INSERT project=5', 'INSERT project=6']);
        await db.raw(`update feature set note = 'a' where id = 1`);
        await db.raw(`update feature set note = 'b' where id < 4`);
        expect(await takePaths(db)).to.deep.equal([]);
        await db.raw(`update feature set note = 'a'`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE project=4', 'UPDATE project=5', 'UPDATE project=6']);
        await db.raw(`update feature set enabled = true where id = 1`);
        await db.raw(`update feature set enabled = null where id = 4`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE project=1', 'UPDATE project=4']);
        await db.raw(`update feature set enabled = not enabled where id in (2, 5)`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE project=2', 'UPDATE project=5']);
        await db.raw(`update feature set project = 10, enabled = true where id = 3`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE project=10', 'UPDATE project=3']);
        await db.raw(`delete from feature where id in (4, 5)`);
        await db.raw(`delete from feature where id = 4`);
        expect(await takePaths(db)).to.deep.equal([]);
        await db.raw(`delete from feature`);
        expect(await takePaths(db)).to.deep.equal([
          'DELETE project=1',
          'DELETE project=10',
          'DELETE project=2',
          'DELETE project=6',
        ]);
        expect(await checkTriggers(db)).to.deep.equal([]);
      });
    }

    it('bump for an UPDATE of a thousand rows, and for a changed key', async () => {
      await on('feature', { limit: 5 }).bump({ project: 'project' }, { when: 'enabled' }).install();
      await rows(1, 3_000, false);
      await db.raw(`update feature set note = 'a'`);
      expect(await takePaths(db)).to.deep.equal([]);
      await db.raw(`update feature set enabled = true where id = 2999`);
      await db.raw(`update feature set note = 'b'`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE project=2999', 'UPDATE project=2999']);
      await db.raw('update feature set id = id + 10000');
      expect(await takePaths(db)).to.deep.equal(['UPDATE project=2999']);
      await db.raw('update feature set enabled = true');
      expect(await takePaths(db)).to.deep.equal(['UPDATE ']);
    });

    it('bump on a table without a primary key', async () => {
      await on('keyless').bump({ project: 'project' }, { when: 'enabled' }).install();
      await db.raw('insert into keyless values (1, 1, true), (2, 2, false), (3, 3, true)');
      expect(await takePaths(db)).to.deep.equal(['INSERT project=1', 'INSERT project=3']);
      await db.raw('update keyless set enabled = not enabled where id > 1');
      expect(await takePaths(db)).to.deep.equal(['UPDATE project=2', 'UPDATE project=3']);
    });

    it('hold for each bump by itself, lookups too, and for subscribers', async () => {
      await db.raw(`create table strategy (feature_id int, environment text)`);
      await db.raw(`insert into strategy values (1, 'a'), (2, 'b')`);
      await on('strategy').bump({ environment: 'environment' }).install();
      await on('feature', { subscriber: true })
        .bump({ project: 'project' }, { when: `stage = 'live'` })
        .lookUp('strategy', { feature_id: 'id' })
        .bump({ environment: 'environment', project: changed('project') }, { when: 'enabled' })
        .lookUp('strategy', { feature_id: 'id' })
        .bump({ environment: 'environment' }, { when: `config ? 'always'` })
        .install();
      expect(await checkTriggers(db)).to.deep.equal([]);
      await db.raw(`insert into feature (id, project, enabled, stage, config) values (1, 7, true, 'draft', '{}')`);
      expect(await takeScopes(db)).to.deep.equal(['environment=a/project=7']);
      await db.raw(`insert into feature (id, project, enabled, stage, config)
        values (2, 8, false, 'live', '{"always": 1}'), (3, 9, false, 'draft', '{}')`);
      expect(await takeScopes(db)).to.deep.equal(['environment=b', 'project=8']);
      await db.transaction(async (trx) => {
        await trx.raw(`set local session_replication_role = replica`);
        await trx.raw(`update feature set note = 'x' where id in (1, 3)`);
      });
      expect(await takeScopes(db)).to.deep.equal(['environment=a/project=7']);
    });

    it('do not cover a lookup: a row that does not meet them would bump nothing', async () => {
      await db.raw('create table strategy (id int primary key, feature_id int)');
      await on('feature').bump({ project: 'project' }, { when: 'enabled' }).install();
      const error = await rejection(
        on('strategy').lookUp('feature', { id: 'feature_id' }).bump({ project: 'project' }).install(),
      );
      expect(error.message).to.match(/feature bumps no scope at or above \{ project \}/);
    });
  });

  describe('as an id', () => {
    it('bump the text, the number or the label that a row has', async () => {
      await on()
        .bump({ organization: expression(`config->>'organization_id'`), project: 'project' })
        .bump({ size: expression(`(config->>'size')::bigint`) })
        .bump({ stage: expression(`coalesce(stage, 'live')`) })
        .install();
      await db.raw(`insert into feature (id, project, config) values (1, 7, '{"organization_id": "a/b", "size": 12}')`);
      expect(await takePaths(db)).to.deep.equal([
        'INSERT organization=a%2Fb/project=7',
        'INSERT size=12',
        'INSERT stage=live',
      ]);
      await db.raw(`insert into feature (id, project, config) values (2, 8, '{}'), (3, 8, '{"size": 1}')`);
      expect(await takePaths(db)).to.deep.equal([
        'INSERT organization=~/project=8',
        'INSERT size=1',
        'INSERT size=~',
        'INSERT stage=live',
      ]);
      await db.raw(`update feature set config = config || '{"size": 13}' where id = 1`);
      expect(await takePaths(db))
        .to.include('UPDATE size=12')
        .and.include('UPDATE size=13');
      await db.raw(`update feature set config = config || '{"size": 14}' where id in (1, 2)`);
      expect(await takePaths(db))
        .to.include('UPDATE size=13')
        .and.include('UPDATE size=14')
        .and.include('UPDATE size=~');
      expect(await checkTriggers(db)).to.deep.equal([]);
    });

    it('count as a change where `columns` leave out their columns', async () => {
      await on('feature', { columns: ['note'] })
        .bump({ organization: expression(`config->>'id'`) })
        .install();
      await db.raw(`insert into feature (id, config) values (1, '{"id": 1}'), (2, '{"id": 2}')`);
      await takeEvents(db);
      await db.raw(`update feature set config = '{"id": 3}' where id = 1`);
      await db.raw(`update feature set config = config || '{"other": 3}'`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE organization=1', 'UPDATE organization=3']);
    });

    it('go along with a lookup', async () => {
      await db.raw(`create table strategy (feature_id int, environment text); insert into strategy values (1, 'x')`);
      await on('feature')
        .lookUp('strategy', { feature_id: 'id' })
        .bump({ environment: 'environment', organization: expression(`config->>'it''s'`) })
        .install();
      await db.raw(`insert into feature (id, config) values (1, '{"it''s": "b c"}')`);
      expect(await takeScopes(db)).to.deep.equal(['environment=x/organization=b%20c']);
    });

    it('bump everything, and let the write pass, where they fail for a row', async () => {
      await on()
        .bump({ size: expression(`(config->>'size')::bigint`) })
        .install();
      await db.raw(`insert into feature (id, config) values (1, '{"size": "much"}')`);
      const [event] = await takeEvents(db);
      expect(event).to.include({ path: '' });
      expect(event!.args).to.deep.equal({ error: '22P02: invalid input syntax for type bigint: "much"' });
    });
  });

  describe('are refused at installation', () => {
    const condition = (when: string) => () =>
      on().bump({ project: 'project' }, { when: when.replace('SCHEMA', schemaOf(db)) });
    const id = (sql: string) => () => on().bump({ project: expression(sql) });
    const ALONE = 'must depend on the row of SCHEMA.feature alone, but';
    const USE = 'Use columns, literals, operators and immutable built-in functions.';
    const COMPUTED = "can't be computed from a row of SCHEMA.feature:";
    const NAME = 'Name columns that the table has, and install again.';
    const refusals: Record<string, [() => { install(): Promise<void> }, string | RegExp]> = {
      'that name no column of the table': [
        condition('enabld'),
        `The condition 'enabld' ${COMPUTED} column "enabld" does not exist. ${NAME}`,
      ],
      'that name the row of a trigger': [condition('new.enabled'), /missing FROM-clause entry for table "new"/],
      'that are no SQL': [condition('enabled ='), /The condition 'enabled =' can't be computed .* syntax error/],
      'that are a statement more': [condition('true); drop table feature; select (1'), /syntax error at or near ";"/],
      'that are no boolean': [
        condition('project'),
        `The condition 'project' must be a boolean, but is integer. Compare the value with another one, as in \`status = 'open'\`, and install again.`,
      ],
      'that are empty': [condition(' '), /^The condition of a bump must be SQL about the row, but got ' '\./],
      'that depend on the time': [
        condition(`now() > '2026-01-01'`),
        `The condition "now() > '2026-01-01'" ${ALONE} functions in index predicate must be marked IMMUTABLE. ${USE}`,
      ],
      'that depend on a setting of the session': [
        id(`to_char(id, 'FM999D9') || current_setting('a.b', true)`),
        /IMMUTABLE/,
      ],
      'that read another table': [condition(`exists (select from pg_class)`), /cannot use subquery in index predicate/],
      'that count rows': [condition('count(*) > 1'), /aggregate functions are not allowed/],
      'that call a function of the application': [
        condition('SCHEMA.mine(id)'),
        /it uses the function \S*mine\(integer\), which the application may replace/,
      ],
      'that convert to a domain, whose constraint may call a function of the application': [
        condition('id::SCHEMA.small > 1'),
        /it uses the type \S*small, which the application may replace/,
      ],
      'that find a function of the application without a schema': [
        condition('mine(id)'),
        /function mine\(integer\) does not exist/,
      ],
      'that are an id of an unsuitable type': [
        id('config'),
        "The id 'config' must be a smallint, integer, bigint, text, varchar, uuid or an enumeration, but is jsonb. Convert the value, as in `config->>'id'`, or leave the id out, which bumps the scope above.",
      ],
    };
    for (const [what, [change, message]] of Object.entries(refusals)) {
      it(what, async () => {
        const schema = schemaOf(db);
        await db.raw(`create function mine(int) returns boolean immutable language sql as 'select true'`);
        await db.raw(`create domain small as int check (value < 10)`);
        const error = await rejection(change().install());
        expect(error).to.include({ name: 'ConfigurationError' });
        const text = error.message.replaceAll(schema, 'SCHEMA');
        if (typeof message === 'string') expect(text).to.equal(message);
        else expect(text).to.match(message);
        expect(await db('feature')).to.deep.equal([]);
        expect(await db('gencache_trigger')).to.deep.equal([]);
        expect((await db.raw(`select to_regclass('gencache_probe') as probe`)).rows).to.deep.equal([{ probe: null }]);
      });
    }

    it('and leave the transaction of the caller usable', async () => {
      await db.transaction(async (trx) => {
        const change = onChangeOf(trx, 'feature', { cache }).bump({}, { when: 'nothing' });
        expect(await rejection(change.install())).to.include({ name: 'ConfigurationError' });
        await onChangeOf(trx, 'feature', { cache }).bump({}, { when: 'enabled -- a comment' }).install();
      });
      await rows(1, 1, true);
      expect(await takePaths(db)).to.deep.equal(['INSERT ']);
    });
  });

  describe('after a change of the table', () => {
    const changes: Record<string, [change: string, problem: string | undefined]> = {
      'the column of the condition renamed': ['alter table feature rename enabled to active', 'expression unsuitable'],
      'the column of the condition dropped': ['alter table feature drop enabled', 'expression unsuitable'],
      'the column of the condition of another type': [
        'alter table feature alter enabled type int using 1',
        'expression unsuitable',
      ],
      'the column of the id dropped': ['alter table feature drop config', 'expression unsuitable'],
      'the column of the id of another type': [
        `alter table feature alter config drop default, alter config type text, alter config set default '{}'`,
        'expression unsuitable',
      ],
      'another column dropped': ['alter table feature drop note', undefined],
    };
    for (const [what, [change, problem]] of Object.entries(changes)) {
      it(`${what}: no write fails, no scope is left out, and a check ${problem === undefined ? 'finds nothing' : 'reports it'}`, async () => {
        await on()
          .bump({ organization: expression(`config->>'id'`) }, { when: 'enabled' })
          .install();
        await db.raw(change);
        const found = (await checkTriggers(db)).map((each) => each.problem);
        expect(found).to.deep.equal(problem === undefined ? [] : [problem]);
        const repaired = (await repairTriggers(db)).map((each) => each.problem);
        expect(repaired).to.deep.equal(found);
        await db.raw('insert into feature (id) values (1), (2)');
        await db.raw('insert into feature (id) values (3)');
        await db.raw('update feature set project = 1');
        await db.raw('delete from feature');
        const paths = await takePaths(db);
        expect(paths).to.deep.equal(problem === undefined ? [] : ['DELETE ', 'INSERT ', 'INSERT ', 'UPDATE ']);
      });
    }
  });
});
