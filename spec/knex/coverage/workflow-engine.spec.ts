import { expect } from 'chai';
import { coverage, installOutbox } from '../../../lib/knex/index.js';
import { installWorkflowTriggers } from '../../../lib/workflow-engine/workflow-triggers.js';
import { lendWorkflowCache, lendWorkflowDatabase, seed } from '../../workflow-engine/support.js';
import { summary } from './support.js';

const SAMPLES = [
  { detector: 1, environment: 2 },
  { detector: 2, environment: null },
];

describe('coverage of the workflow engine', () => {
  it('finds that its triggers watch all that its query reads, and no insert or delete that the links tell of', async () => {
    const db = await lendWorkflowDatabase();
    await seed(db);
    const { name, cache } = lendWorkflowCache(db);
    await installOutbox(db);
    const check = () => coverage(cache, { db, samples: SAMPLES });
    expect(summary(await check())).to.deep.equal([
      'gap table not watched: detector (id, enabled)',
      'gap table not watched: detector_workflow (detector_id, workflow_id)',
      'gap table not watched: workflow (id, name, environment_id, enabled, config, updated_at)',
    ]);
    await installWorkflowTriggers(db, { cache: name });
    const report = await check();
    expect(summary(report)).to.deep.equal([]);
    expect(report.ok).to.equal(true);
  });
});
