import { expect } from 'chai';
import type { Knex } from 'knex';
import { lockDetectorsOfEnvironment, unionOfWorkflows } from '../../lib/workflow-engine/index.js';
import { recordCommands } from '../support/commands.js';
import { redisUrl } from '../support/redis.js';
import { lendWorkflowCache, lendWorkflowDatabase, names, seed } from './support.js';

describe('WorkflowCache', () => {
  let db: Knex;
  let queries: string[];

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await seed(db);
    queries = [];
    // Without the publication of the cache, one statement a process.
    db.on('query', ({ sql }: { sql: string }) => void (sql.startsWith('do ') || queries.push(sql)));
  });

  it('returns each detector’s enabled workflows of the environment, then those of no environment', async () => {
    const { workflows } = lendWorkflowCache(db);
    expect(names(await workflows.getWorkflowsByDetectors([1, 2, 3, 4, 99], 1))).to.deep.equal([
      'w1 w3',
      'w1 w3',
      '',
      '',
      '',
    ]);
    expect(names(await workflows.getWorkflowsByDetectors([2, 1], 2))).to.deep.equal(['w3', 'w2 w3']);
    expect(names(await workflows.getWorkflowsByDetectors([2, 1], null))).to.deep.equal(['w3', 'w3']);
  });

  it('keeps the types of cached values', async () => {
    const { workflows, cache } = lendWorkflowCache(db);
    const [loaded] = await workflows.getWorkflowsByDetectors([1], null);
    await cache.settled();
    const [cached] = await workflows.getWorkflowsByDetectors([1], null);
    expect(cached).to.deep.equal(loaded);
    expect(cached![0]).to.deep.include({ id: 3, environmentId: null, config: { notify: ['on-call'] } });
    expect(cached![0]!.updatedAt).to.be.instanceOf(Date);
    expect(cache.statistics.total('hits')).to.equal(1);
  });

  it('takes 1, 1n and "1" as the same detector', async () => {
    const { workflows } = lendWorkflowCache(db);
    expect(names(await workflows.getWorkflowsByDetectors([1, 1n, '1'], '1'))).to.deep.equal([
      'w1 w3',
      'w1 w3',
      'w1 w3',
    ]);
    expect(queries).to.have.length(1);
  });

  it('reads both kinds of all detectors in one command, and fills all misses with one query', async () => {
    const { name, workflows, cache } = lendWorkflowCache(db);
    const cold = await recordCommands(
      redisUrl(),
      async () => {
        await workflows.getWorkflowsByDetectors([1, 2, 3], 1);
        await cache.settled();
      },
      { from: name },
    );
    // generations (all missing), mint, leases, fill
    expect(cold.commands.map(([command]) => command)).to.deep.equal(['MGET', 'EVAL', 'EVAL', 'EVAL']);
    expect(queries).to.have.length(1);
    const warm = await recordCommands(redisUrl(), () => workflows.getWorkflowsByDetectors([1, 2, 3], 1), {
      from: name,
    });
    // 1 global + 3 detectors + 6 environments, and 6 entries
    expect(warm.commands.map(([command, ...keys]) => [command, keys.length])).to.deep.equal([['MGET', 16]]);
    expect(queries).to.have.length(1);
    expect(cache.statistics.total('queries_avoided')).to.equal(1);
  });

  it('loads only the kind that misses', async () => {
    const { workflows, cache } = lendWorkflowCache(db);
    await workflows.getWorkflowsByDetectors([1], 1);
    await cache.settled();
    await workflows.getWorkflowsByDetectors([1], 2);
    await cache.settled();
    expect(cache.statistics.total('hits')).to.equal(1);
    expect(cache.statistics.total('misses')).to.equal(3);
  });

  it('reads inside a transaction from that transaction alone', async () => {
    const { workflows, cache } = lendWorkflowCache(db);
    await workflows.getWorkflowsByDetectors([2], 1);
    await cache.settled();
    await db.transaction(async (trx) => {
      await trx('detector_workflow').insert({ detector_id: 2, workflow_id: 5 });
      expect(names(await workflows.getWorkflowsByDetectors([2], 1, { trx }))).to.deep.equal(['w1 w5 w3']);
    });
    expect(cache.statistics.total('bypasses')).to.equal(2);
    expect(cache.statistics.total('fills')).to.equal(2);
  });

  it('returns no duplicates in a union', async () => {
    const { workflows } = lendWorkflowCache(db);
    const lists = await workflows.getWorkflowsByDetectors([1, 2], 1);
    expect(names([unionOfWorkflows(lists)])).to.deep.equal(['w1 w3']);
  });

  describe('after a change', () => {
    const wanted = [
      { detector: 1, environment: 1 },
      { detector: 1, environment: 2 },
      { detector: 2, environment: 1 },
      { detector: 2, environment: 2 },
    ];

    /** What every pair reads in another process, and how many of the eight entries behind it had to be loaded. */
    async function changed(
      change: (changes: ReturnType<typeof lendWorkflowCache>['changes']) => Promise<void>,
    ): Promise<{ read: Record<string, string>; missed: number }> {
      const writer = lendWorkflowCache(db);
      const reader = lendWorkflowCache(db, writer.name);
      const readAll = async () => {
        const read: Record<string, string> = {};
        for (const { detector, environment } of wanted) {
          const lists = await reader.workflows.getWorkflowsByDetectors([detector], environment);
          read[`${detector}/${environment}`] = names(lists)[0]!;
          await reader.cache.settled();
        }
        return read;
      };
      await readAll();
      const before = reader.cache.statistics.total('misses');
      await change(writer.changes);
      return { read: await readAll(), missed: reader.cache.statistics.total('misses') - before };
    }

    it('bumps all environments of an updated detector', async () => {
      const { read, missed } = await changed(async (changes) => {
        await db('detector').where('id', 1).update({ enabled: false });
        await changes.detectorsChanged([1]);
      });
      expect(read).to.deep.equal({ '1/1': '', '1/2': '', '2/1': 'w1 w3', '2/2': 'w3' });
      expect(missed).to.equal(3);
    });

    it('bumps each pair of an updated workflow, and no other', async () => {
      const { read, missed } = await changed(async (changes) => {
        await db('workflow').where('id', 1).update({ enabled: false });
        await changes.workflowUpdated(1, [1]);
      });
      expect(read).to.deep.equal({ '1/1': 'w3', '1/2': 'w2 w3', '2/1': 'w3', '2/2': 'w3' });
      expect(missed).to.equal(2);
    });

    it('bumps the old and the new pairs of a moved workflow', async () => {
      const { read, missed } = await changed(async (changes) => {
        await db('workflow').where('id', 1).update({ environment_id: 2 });
        await changes.workflowUpdated(1, [1, 2]);
      });
      expect(read).to.deep.equal({ '1/1': 'w3', '1/2': 'w1 w2 w3', '2/1': 'w3', '2/2': 'w1 w3' });
      expect(missed).to.equal(4);
    });

    it('bumps nothing for a created workflow', async () => {
      const { missed } = await changed(async () => {
        await db('workflow').insert({ name: 'w6', environment_id: 1 });
      });
      expect(missed).to.equal(0);
    });

    it('bumps the old and the new detector of a moved link', async () => {
      const { read, missed } = await changed(async (changes) => {
        await db('detector_workflow').where({ detector_id: 1, workflow_id: 2 }).update({ detector_id: 2 });
        await changes.linksChanged([1, 2]);
      });
      expect(read).to.deep.equal({ '1/1': 'w1 w3', '1/2': 'w3', '2/1': 'w1 w3', '2/2': 'w2 w3' });
      expect(missed).to.equal(6);
    });

    it('bumps the detectors of every workflow of a deleted environment', async () => {
      const { read, missed } = await changed(async (changes) => {
        const detectors = await db.transaction(async (trx) => {
          const linked = await lockDetectorsOfEnvironment(trx, 2);
          await trx('environment').where('id', 2).delete();
          return linked;
        });
        expect(detectors).to.deep.equal(['1']);
        await changes.workflowsDeleted(detectors);
      });
      expect(read).to.deep.equal({ '1/1': 'w1 w3', '1/2': 'w3', '2/1': 'w1 w3', '2/2': 'w3' });
      expect(missed).to.equal(3);
    });

    it('bumps everything after TRUNCATE', async () => {
      const { read, missed } = await changed(async (changes) => {
        await db.raw('truncate detector_workflow');
        await changes.everythingChanged();
      });
      expect(read).to.deep.equal({ '1/1': '', '1/2': '', '2/1': '', '2/2': '' });
      expect(missed).to.equal(6);
    });
  });
});
