import { expect } from 'chai';
import { coverage, installOutbox } from '../../../lib/knex/index.js';
import {
  ActionFilterCache,
  DetectorCache,
  installActionFilterTriggers,
  installDetectorTriggers,
  installWorkflowTriggers,
} from '../../../lib/workflow-engine/index.js';
import {
  lendCache,
  lendWorkflowCache,
  lendWorkflowDatabase,
  lendWorkflowEngine,
  seed,
} from '../../workflow-engine/support.js';
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

  it('finds that the triggers of the cache of detectors watch all that its query reads', async () => {
    const db = await lendWorkflowDatabase();
    const cache = lendCache(db);
    // oxlint-disable-next-line no-new -- declares
    new DetectorCache(cache);
    await installOutbox(db);
    await db('data_source').insert({ id: 7, type: 'metric', source_id: 'cpu' });
    await db('detector').insert({ id: 42, name: 'd', type: 'metric' });
    await db('data_source_detector').insert({ data_source_id: 7, detector_id: 42 });
    const check = () => coverage(cache, { db, samples: { source_type: 'metric', source: 'cpu' } });
    expect(summary(await check())).to.deep.equal([
      'gap table not watched: data_source (id, type, source_id)',
      'gap table not watched: data_source_detector (data_source_id, detector_id)',
      'gap table not watched: detector (id, name, type, enabled, config)',
    ]);
    await installDetectorTriggers(db, { cache: cache.name });
    const report = await check();
    expect(summary(report, ['gap', 'unknown', 'note'])).to.deep.equal([]);
    expect(report.ok).to.equal(true);
  });

  it('finds that the triggers of the cache of action filters watch all that its query reads', async () => {
    const db = await lendWorkflowDatabase();
    const cache = lendCache(db);
    // oxlint-disable-next-line no-new -- declares
    new ActionFilterCache(cache);
    await installOutbox(db);
    await db('workflow').insert({ id: 42, name: 'w' });
    await db('condition_group').insert({ id: 7 });
    await db('condition').insert({ condition_group_id: 7, type: 'age', comparison: '1' });
    await db('workflow_condition_group').insert({ workflow_id: 42, condition_group_id: 7 });
    const check = () => coverage(cache, { db, samples: { workflow: 42 } });
    expect(summary(await check())).to.deep.equal([
      'gap table not watched: workflow_condition_group (workflow_id, condition_group_id)',
      'gap table not watched: condition_group (id, logic)',
      'gap table not watched: condition (id, condition_group_id, type, comparison, result)',
    ]);
    await installActionFilterTriggers(db, { cache: cache.name });
    const report = await check();
    expect(summary(report, ['gap', 'unknown', 'note'])).to.deep.equal([]);
    expect(report.ok).to.equal(true);
  });

  it('finds no gap in the three caches together', async () => {
    const db = await lendWorkflowDatabase();
    await seed(db);
    const { name, cache } = lendWorkflowEngine(db);
    await installOutbox(db);
    for (const install of [installWorkflowTriggers, installDetectorTriggers, installActionFilterTriggers]) {
      await install(db, { cache: name });
    }
    const samples = [...SAMPLES, { source_type: 'metric', source: 'cpu', workflow: 1 }];
    const report = await coverage(cache, { db, samples });
    expect(summary(report)).to.deep.equal([]);
    expect(report.ok).to.equal(true);
  });
});
