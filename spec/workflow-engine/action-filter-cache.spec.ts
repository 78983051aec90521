import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../lib/knex/index.js';
import { type ActionFilter, installActionFilterTriggers } from '../../lib/workflow-engine/index.js';
import { psql } from '../knex/triggers/psql.js';
import { holding, takeScopes } from '../knex/triggers/support.js';
import { eventually } from '../support/deferred.js';
import { lendRelay } from '../support/relay.js';
import { recordCommands } from '../support/commands.js';
import { redisUrl } from '../support/redis.js';
import { counted, lendWorkflowDatabase, lendWorkflowEngine } from './support.js';

const ALL = [1, 2, 3, 99];

/**
 * Workflows 1 to 3 and groups 1 to 4. Workflow 1 has groups 1 and 2; workflow 2 has groups 2 and 3; workflow 3 has none, and
 * group 4 no workflow. Group 1 has conditions 1 and 2; group 3 has condition 3; group 4 has condition 4; group 2 has none.
 */
async function seedFilters(db: Knex): Promise<void> {
  await db('workflow').insert([1, 2, 3].map((id) => ({ name: `w${id}` })));
  await db('condition_group').insert([1, 2, 3, 4].map((id) => ({ logic: id === 1 ? 'all' : 'any' })));
  await db('condition').insert(
    [1, 1, 3, 4].map((group, i) => ({ condition_group_id: group, type: `c${i + 1}`, comparison: { above: i } })),
  );
  const links = [
    [1, 2],
    [1, 1],
    [2, 2],
    [2, 3],
  ];
  await db('workflow_condition_group').insert(links.map(([workflow, group]) => link(workflow!, group!)));
}

const link = (workflow: number, group: number) => ({ workflow_id: workflow, condition_group_id: group });

/** `all(c1 c2) any()` */
function written(lists: readonly (readonly ActionFilter[])[]): string[] {
  return lists.map((filters) =>
    filters.map(({ logic, conditions }) => `${logic}(${conditions.map(({ type }) => type).join(' ')})`).join(' '),
  );
}

const BEFORE = ['all(c1 c2) any()', 'any() any(c3)', '', ''];

describe('ActionFilterCache', () => {
  let db: Knex;
  let queries: string[];

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await seedFilters(db);
    queries = [];
    // Without the publication of the cache, one statement a process.
    db.on('query', ({ sql }: { sql: string }) => void (sql.startsWith('do ') || queries.push(sql)));
  });

  it('returns each workflow’s action filters by id with their conditions by id, and none for an unknown workflow', async () => {
    const { filters } = lendWorkflowEngine(db);
    expect(written(await filters.getActionFiltersByWorkflows(ALL))).to.deep.equal(BEFORE);
    expect(written(await filters.getActionFiltersByWorkflows(['2', 1n]))).to.deep.equal([BEFORE[1], BEFORE[0]]);
  });

  it('keeps the types of cached values', async () => {
    const { filters, cache } = lendWorkflowEngine(db);
    const [loaded] = await filters.getActionFiltersByWorkflows([2]);
    await cache.settled();
    const [cached] = await filters.getActionFiltersByWorkflows([2]);
    expect(cached).to.deep.equal(loaded);
    expect(cached).to.deep.equal([
      { id: 2, logic: 'any', conditions: [] },
      { id: 3, logic: 'any', conditions: [{ id: 3, type: 'c3', comparison: { above: 2 }, result: true }] },
    ]);
    expect(cache.statistics.total('hits')).to.equal(1);
  });

  it('returns the whole id of a condition beyond 2^53', async () => {
    const { filters } = lendWorkflowEngine(db);
    await db('condition').where('id', 3).update({ id: '9007199254740993' });
    const [[, group] = []] = await filters.getActionFiltersByWorkflows([2]);
    expect(group!.conditions.map(({ id }) => id)).to.deep.equal(['9007199254740993']);
  });

  it('caches that a workflow has no action filters', async () => {
    const { filters, cache } = lendWorkflowEngine(db);
    const read = () => counted(cache, () => filters.getActionFiltersByWorkflows([3]));
    expect(await read()).to.deep.equal({ read: [[]], missed: 1 });
    expect(await read()).to.deep.equal({ read: [[]], missed: 0 });
    expect(queries).to.have.length(1);
  });

  it('reads all workflows in one command, and loads with one query only those that miss', async () => {
    const { name, filters, cache } = lendWorkflowEngine(db);
    await filters.getActionFiltersByWorkflows([1]);
    await cache.settled();
    const mixed = await counted(cache, () => filters.getActionFiltersByWorkflows(ALL));
    expect([mixed.missed, queries.length]).to.deep.equal([3, 2]);
    const warm = await recordCommands(redisUrl(), () => filters.getActionFiltersByWorkflows(ALL), { from: name });
    // 1 global + 4 workflows, and 4 entries
    expect(warm.commands.map(([command, ...keys]) => [command, keys.length])).to.deep.equal([['MGET', 9]]);
    expect(queries).to.have.length(2);
  });

  it('bumps by hand these workflows, and no other', async () => {
    const { filters, cache } = lendWorkflowEngine(db);
    await filters.getActionFiltersByWorkflows(ALL);
    await cache.settled();
    await db('condition').where('id', 3).delete();
    await filters.bumpWorkflows([2], { cause: 'condition changed' });
    const { read, missed } = await counted(cache, () => filters.getActionFiltersByWorkflows(ALL));
    expect(written(read)).to.deep.equal([BEFORE[0], 'any() any()', '', '']);
    expect(missed).to.equal(1);
  });

  describe('with its triggers', () => {
    async function lendProcesses() {
      const writer = lendWorkflowEngine(db);
      const reader = lendWorkflowEngine(db, writer.name);
      await installOutbox(db);
      await installActionFilterTriggers(db, { cache: writer.name });
      const readAll = () =>
        counted(reader.cache, async () => written(await reader.filters.getActionFiltersByWorkflows(ALL)));
      expect(await readAll()).to.deep.equal({ read: BEFORE, missed: 4 });
      return { writer, readAll };
    }

    /** What all workflows read in another process after a transaction, and how many of the four entries were loaded. */
    async function changed(work: (trx: Knex.Transaction) => PromiseLike<unknown>) {
      const { writer, readAll } = await lendProcesses();
      expect((await writer.cache.transaction(async (trx) => void (await work(trx)))).bump).to.equal('done');
      return readAll();
    }

    it('refresh both workflows of a condition that moves from the group of one to that of the other', async () => {
      const moved = await changed((trx) => trx('condition').where('id', 2).update({ condition_group_id: 3 }));
      expect(moved).to.deep.equal({ read: ['all(c1) any()', 'any() any(c2 c3)', '', ''], missed: 2 });
    });

    it('refresh the workflow of a condition that is changed, and no other', async () => {
      const changedOne = await changed((trx) => trx('condition').where('id', 3).update({ type: 'new' }));
      expect(changedOne).to.deep.equal({ read: [BEFORE[0], 'any() any(new)', '', ''], missed: 1 });
    });

    it('refresh every workflow of a group that gets a condition', async () => {
      const added = await changed((trx) =>
        trx('condition').insert({ condition_group_id: 2, type: 'new', comparison: '7' }),
      );
      expect(added).to.deep.equal({ read: ['all(c1 c2) any(new)', 'any(new) any(c3)', '', ''], missed: 2 });
    });

    it('refresh every workflow of a group whose logic changes', async () => {
      const updated = await changed((trx) => trx('condition_group').where('id', 2).update({ logic: 'none' }));
      expect(updated).to.deep.equal({ read: ['all(c1 c2) none()', 'none() any(c3)', '', ''], missed: 2 });
    });

    it('refresh the workflow of a group that is deleted with its conditions and its link', async () => {
      const deleted = await changed((trx) => trx('condition_group').where('id', 1).delete());
      expect(deleted).to.deep.equal({ read: ['any()', BEFORE[1], '', ''], missed: 1 });
    });

    it('refresh the workflow of a group that a cascade deletes', async () => {
      await db.raw(`create table organization (id bigint primary key);
                    insert into organization values (7);
                    alter table condition_group add organization_id bigint references organization on delete cascade;
                    update condition_group set organization_id = 7 where id = 3`);
      const deleted = await changed((trx) => trx('organization').delete());
      expect(deleted).to.deep.equal({ read: [BEFORE[0], 'any()', '', ''], missed: 1 });
    });

    it('refresh a workflow whose links are replaced as a whole', async () => {
      const replaced = await changed(async (trx) => {
        await trx('workflow_condition_group').where('workflow_id', 1).delete();
        await trx('workflow_condition_group').insert(link(1, 4));
      });
      expect(replaced).to.deep.equal({ read: ['any(c4)', BEFORE[1], '', ''], missed: 1 });
    });

    it('refresh a workflow that is deleted', async () => {
      const deleted = await changed((trx) => trx('workflow').where('id', 1).delete());
      expect(deleted).to.deep.equal({ read: ['', BEFORE[1], '', ''], missed: 1 });
    });

    it('leave every workflow warm where a group of none changes, with its conditions', async () => {
      const { missed } = await changed(async (trx) => {
        await trx('condition_group').where('id', 4).update({ logic: 'none' });
        await trx('condition').insert({ condition_group_id: 4, type: 'new', comparison: '7' });
        await trx('condition').where('id', 4).update({ type: 'x' });
        await trx('condition_group').where('id', 4).delete();
        await trx('condition_group').insert({ logic: 'any' });
      });
      expect(missed).to.equal(0);
    });

    it('miss no workflow where one transaction adds a condition to a group while another one links the group', async () => {
      await installOutbox(db);
      await installActionFilterTriggers(db, { cache: 'workflow_engine' });
      const commitCondition = await holding(db, (trx) =>
        trx('condition').insert({ condition_group_id: 3, type: 'new', comparison: '7' }),
      );
      const commitLink = await holding(db, (trx) => trx('workflow_condition_group').insert(link(3, 3)));
      await commitCondition();
      // Resolved between the commits: the link is not seen, and bumps for itself.
      expect(await takeScopes(db)).to.deep.equal(['workflow=2']);
      await commitLink();
      expect(await takeScopes(db)).to.deep.equal(['workflow=3']);
    });

    it('refresh both workflows by a relay after psql moved a condition', async () => {
      const { writer, readAll } = await lendProcesses();
      lendRelay({ cache: writer.name, db });
      await eventually(async () => expect(await db('gencache_outbox').select()).to.deep.equal([]));
      await readAll(); // warm again, after the first repair of the relay
      await psql(db, 'update condition set condition_group_id = 3 where id = 2;');
      await eventually(async () => {
        expect((await readAll()).read).to.deep.equal(['all(c1) any()', 'any() any(c2 c3)', '', '']);
      });
    });
  });
});
