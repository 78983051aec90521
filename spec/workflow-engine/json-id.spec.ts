import { expect } from 'chai';
import type { Knex } from 'knex';
import { integer } from '../../lib/index.js';
import { coverage, expression, installOutbox, onChangeOf } from '../../lib/knex/index.js';
import { checkTriggers } from '../../lib/knex/triggers/check-triggers.js';
import {
  installActionFilterTriggers,
  installDetectorTriggers,
  installWorkflowTriggers,
} from '../../lib/workflow-engine/index.js';
import { summary } from '../knex/coverage/support.js';
import { counted, lendWorkflowDatabase, lendWorkflowEngine } from './support.js';

const ALL = [7, 8, 9];

/** One process of an application with a cache of its own beside the engine's: detectors by an id within their JSON. */
function lendApplication(db: Knex, name?: string) {
  const engine = lendWorkflowEngine(db, name);
  const ofOrganization = engine.cache.namespace('organization', integer()).list('detectors_of_all_projects', {
    load: (ids, { db }) =>
      db('detector')
        .whereRaw("(config->>'organization_id')::bigint = any(?)", [
          ids.map(({ organization }) => String(organization)),
        ])
        .where('enabled', true)
        .orderBy('id')
        .select<{ name: string; organization_id: string }[]>(
          'name',
          db.raw("(config->>'organization_id')::bigint as organization_id"),
        ),
    by: (row) => ({ organization: row.organization_id }),
    value: (row) => row.name,
  });
  const read = async () => {
    const lists = await ofOrganization.fetchMany(ALL.map((organization) => ({ organization })));
    return lists.map((list) => list.join(' '));
  };
  return { ...engine, read };
}

async function installOwnTriggers(db: Knex, cache: string): Promise<void> {
  await onChangeOf(db, 'detector', { cache, name: 'by_organization' })
    .bump({ organization: expression("(config->>'organization_id')::bigint") }, { when: "config ? 'organization_id'" })
    .install();
}

describe('a cache of an application beside the workflow engine, whose scope is an id in a JSON field', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await db('detector').insert([
      { name: 'd1', type: 'issues', config: { organization_id: 7 } },
      { name: 'd2', type: 'issues', config: { organization_id: 8 } },
      { name: 'd3', type: 'issues' },
    ]);
    await installOutbox(db);
  });

  async function changed(work: (trx: Knex.Transaction) => PromiseLike<unknown>) {
    const writer = lendApplication(db);
    const reader = lendApplication(db, writer.name);
    await installWorkflowTriggers(db, { cache: writer.name });
    await installDetectorTriggers(db, { cache: writer.name });
    await installOwnTriggers(db, writer.name);
    expect(await counted(reader.cache, reader.read)).to.deep.equal({ read: ['d1', 'd2', ''], missed: 3 });
    expect((await writer.cache.transaction(async (trx) => void (await work(trx)))).bump).to.equal('done');
    expect(await checkTriggers(db)).to.deep.equal([]);
    return counted(reader.cache, reader.read);
  }

  it('refreshes the old and the new organization of a detector', async () => {
    const moved = await changed((trx) =>
      trx('detector')
        .where('name', 'd1')
        .update({ config: { organization_id: 8, threshold: 1 } }),
    );
    expect(moved).to.deep.equal({ read: ['', 'd1 d2', ''], missed: 2 });
  });

  it('refreshes an organization that had none, and that cached this', async () => {
    const created = await changed((trx) =>
      trx('detector').insert({ name: 'd4', type: 'issues', config: { organization_id: '9' } }),
    );
    expect(created).to.deep.equal({ read: ['d1', 'd2', 'd4'], missed: 1 });
  });

  it('refreshes the organization of a detector whose field goes', async () => {
    const removed = await changed((trx) => trx('detector').where('name', 'd2').update({ config: {} }));
    expect(removed).to.deep.equal({ read: ['d1', '', ''], missed: 1 });
  });

  it('stays warm where a detector without the field changes', async () => {
    const { missed } = await changed((trx) => trx('detector').where('name', 'd3').update({ enabled: false }));
    expect(missed).to.equal(0);
  });

  it('is covered by its own triggers, and not by those of the engine on the same table', async () => {
    const { name, cache } = lendApplication(db);
    for (const install of [installWorkflowTriggers, installDetectorTriggers, installActionFilterTriggers]) {
      await install(db, { cache: name });
    }
    const samples = [
      { organization: 7, detector: 3, environment: null },
      { source_type: 'metric', source: 'cpu', workflow: 1 },
    ];
    expect(summary(await coverage(cache, { db, samples }))).to.deep.equal(['gap scope not bumped: detector']);
    await installOwnTriggers(db, name);
    const report = await coverage(cache, { db, samples });
    expect(summary(report)).to.deep.equal([]);
    expect(report.ok).to.equal(true);
  });
});
