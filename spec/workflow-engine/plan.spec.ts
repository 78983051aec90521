import { expect } from 'chai';
import type { Knex } from 'knex';
import { ACTION_FILTERS_SQL } from '../../lib/workflow-engine/action-filter-cache.js';
import { DETECTORS_SQL } from '../../lib/workflow-engine/detector-cache.js';
import { WORKFLOWS_SQL } from '../../lib/workflow-engine/workflow.js';
import { lendWorkflowDatabase } from './support.js';

/** The demo's shape, 33 times: 3 links a detector, 5 detectors a workflow, 20 environments. */
const LINKS = 1_000_000;
const DETECTORS = 333_334;
const WORKFLOWS = 66_667;
/** Beside them: sources of a detector each, workflows of a group each, and three conditions a group. */
const SOURCES = 50_000;
const GROUPS = 50_000;

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly Plans?: readonly PlanNode[];
}

function* nodesOf(node: PlanNode): Generator<PlanNode> {
  yield node;
  for (const child of node.Plans ?? []) yield* nodesOf(child);
}

describe('the plans of the workflow engine at 1,000,000 links', function () {
  this.timeout(120_000);
  let db: Knex;

  before(async () => {
    db = await lendWorkflowDatabase();
    // The rows keep to the foreign keys by construction; checking a million of them one by one would take most of the time.
    const constraints = ['detector_id', 'workflow_id'].map((column) => `detector_workflow_${column}_foreign`);
    for (const name of constraints) await db.raw('alter table detector_workflow drop constraint ??', [name]);
    await db.raw(`insert into environment (name) select 'e' || n from generate_series(1, 20) n`);
    await db.raw(`insert into detector (name, type) select 'd' || n, 'error' from generate_series(1, ?::int) n`, [
      DETECTORS,
    ]);
    await db.raw(
      `insert into workflow (name, environment_id) select 'w' || n, nullif(n % 21, 0) from generate_series(1, ?::int) n`,
      [WORKFLOWS],
    );
    await db.raw(
      `insert into detector_workflow select 1 + n / 3, 1 + (n / 3 * 7 + n % 3 * 1999) % ?
       from generate_series(0, ?::int - 1) n`,
      [WORKFLOWS, LINKS],
    );
    await db.raw('alter table condition drop constraint condition_condition_group_id_foreign');
    const links = {
      data_source_detector: ['data_source', 'detector'],
      workflow_condition_group: ['workflow', 'condition_group'],
    };
    for (const [table, ends] of Object.entries(links)) {
      for (const end of ends) await db.raw('alter table ?? drop constraint ??', [table, `${table}_${end}_id_foreign`]);
    }
    await db.raw(
      `insert into data_source (type, source_id) select 'metric', 's' || n from generate_series(1, ?::int) n`,
      [SOURCES],
    );
    await db.raw(`insert into data_source_detector select n, n from generate_series(1, ?::int) n`, [SOURCES]);
    await db.raw(`insert into condition_group select from generate_series(1, ?::int) n`, [GROUPS]);
    await db.raw(`insert into workflow_condition_group select n, n from generate_series(1, ?::int) n`, [GROUPS]);
    await db.raw(
      `insert into condition (condition_group_id, type, comparison)
       select 1 + n / 3, 'age', '1' from generate_series(0, 3 * ?::int - 1) n`,
      [GROUPS],
    );
    await db.raw('analyze');
  });

  async function plan(sql: string, bindings: unknown[]): Promise<string[]> {
    const { rows } = await db.raw(`explain (format json) ${sql}`, bindings as Knex.RawBinding[]);
    const nodes = [...nodesOf(rows[0]['QUERY PLAN'][0].Plan)].filter((node) => node['Relation Name'] !== undefined);
    return nodes
      .map((node) => {
        const index = node['Index Name'] ?? node.Plans?.[0]?.['Index Name'];
        return `${node['Node Type']} of ${node['Relation Name']} by ${index ?? 'nothing'}`;
      })
      .toSorted();
  }

  it('has 1,000,000 links', async () => {
    const [{ count }] = (await db('detector_workflow').count()) as [{ count: string }];
    expect(Number(count)).to.equal(LINKS);
  });

  for (const size of [1, 200]) {
    it(`reads by indexes alone in the query for ${size} detectors and environments`, async () => {
      const ids = Array.from({ length: size }, (_, i) => i * 1_511 + 1);
      const scans = await plan(WORKFLOWS_SQL, [ids, ids.map((_, i) => (i % 2 ? 1 + (i % 20) : null))]);
      expect(scans).to.have.length(3);
      for (const scan of scans) expect(scan).to.match(/^(Index|Index Only|Bitmap Heap) Scan of /);
      expect(scans.join('\n')).to.match(/of detector by detector_pkey/);
      expect(scans.join('\n')).to.match(/of detector_workflow by detector_workflow_pkey/);
      expect(scans.join('\n')).to.match(/of workflow by workflow_pkey/);
    });
  }

  for (const size of [1, 100]) {
    const ids = Array.from({ length: size }, (_, i) => i * 487 + 1);

    it(`reads by indexes alone in the query for the detectors of ${size} sources`, async () => {
      const scans = await plan(DETECTORS_SQL, [ids.map(() => 'metric'), ids.map((id) => `s${id}`)]);
      expect(scans).to.have.length(3);
      for (const scan of scans) expect(scan).to.match(/^(Index|Index Only|Bitmap Heap) Scan of /);
      expect(scans.join('\n')).to.match(/of data_source by data_source_type_source_id_unique/);
      expect(scans.join('\n')).to.match(/of data_source_detector by data_source_detector_pkey/);
      expect(scans.join('\n')).to.match(/of detector by detector_pkey/);
    });

    it(`reads by indexes alone in the query for the action filters of ${size} workflows`, async () => {
      const scans = await plan(ACTION_FILTERS_SQL, [ids]);
      expect(scans).to.have.length(3);
      for (const scan of scans) expect(scan).to.match(/^(Index|Index Only|Bitmap Heap) Scan of /);
      expect(scans.join('\n')).to.match(/of workflow_condition_group by workflow_condition_group_pkey/);
      expect(scans.join('\n')).to.match(/of condition_group by condition_group_pkey/);
      expect(scans.join('\n')).to.match(/of condition by condition_condition_group_id_index/);
    });
  }

  it('reads by indexes alone in the lookups of bumps', async () => {
    const byWorkflow = await plan('select distinct detector_id from detector_workflow where workflow_id = any(?)', [
      [9],
    ]);
    expect(byWorkflow.join()).to.match(/detector_workflow_workflow_id_index/);
    expect(byWorkflow.join()).to.not.match(/Seq Scan/);
    const byEnvironment = await plan('select id from workflow where environment_id = ?', [7]);
    expect(byEnvironment.join()).to.match(/workflow_environment_id_index/);
    const sourcesOf = `select distinct type, source_id from data_source_detector
                       join data_source on id = data_source_id where detector_id = ?`;
    expect((await plan(sourcesOf, [9])).join()).to.match(/data_source_detector_detector_id_index/);
    const byGroup = await plan(
      'select distinct workflow_id from workflow_condition_group where condition_group_id = ?',
      [9],
    );
    expect(byGroup.join()).to.match(/workflow_condition_group_condition_group_id_index/);
  });
});
