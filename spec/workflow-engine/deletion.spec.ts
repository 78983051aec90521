import { expect } from 'chai';
import type { Knex } from 'knex';
import { lockDetectorsOfEnvironment, lockDetectorsOfWorkflows } from '../../lib/workflow-engine/index.js';
import { rejection } from '../support/rejection.js';
import { deferred, eventually } from '../support/deferred.js';
import { schemaOf } from '../support/postgres.js';
import { lendWorkflowCache, lendWorkflowDatabase, names, seed } from './support.js';

interface Deletion {
  lock(trx: Knex.Transaction): Promise<string[]>;
  delete(trx: Knex.Transaction): PromiseLike<unknown>;
}

describe('a transaction that deletes workflows', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await seed(db);
  });

  /** Environment 2 has workflow 2, to which detector 1 is linked. */
  const deletions: Record<string, Deletion> = {
    'by their environment': {
      lock: (trx) => lockDetectorsOfEnvironment(trx, 2),
      delete: (trx) => trx('environment').where('id', 2).delete(),
    },
    'by their ids': {
      lock: (trx) => lockDetectorsOfWorkflows(trx, [2]),
      delete: (trx) => trx('workflow').where('id', 2).delete(),
    },
  };

  /** The whole transaction, which resolves to the detectors whose links went. */
  const carryOut = (deletion: Deletion) =>
    db.transaction(async (trx) => {
      const detectors = await deletion.lock(trx);
      await deletion.delete(trx);
      return detectors;
    });

  /** Does `first` in a transaction, which then stays open until `end`, which does the rest and commits. */
  async function begin<T>(first: (trx: Knex.Transaction) => PromiseLike<T>) {
    const begun = deferred<T>();
    const ends = deferred<(trx: Knex.Transaction) => PromiseLike<unknown>>();
    const committed = db.transaction(async (trx) => {
      begun.resolve(await first(trx));
      const rest = await ends.promise;
      await rest(trx);
    });
    committed.catch(begun.reject);
    const result = await begun.promise;
    const end = async (rest: (trx: Knex.Transaction) => PromiseLike<unknown> = async () => {}) => {
      ends.resolve(rest);
      await committed;
    };
    return { result, end };
  }

  /** Resolves when one of this database's sessions waits for another's lock. */
  async function oneWaits(): Promise<void> {
    const waiting = "select 1 from pg_stat_activity where application_name = ? and wait_event_type = 'Lock'";
    await eventually(async () => {
      const { rows } = await db.raw<{ rows: unknown[] }>(waiting, [schemaOf(db)]);
      expect(rows).to.have.length(1);
    });
  }

  const link = (detector: number) => (trx: Knex.Transaction) =>
    trx('detector_workflow').insert({ detector_id: detector, workflow_id: 2 });

  for (const [how, deletion] of Object.entries(deletions)) {
    describe(how, () => {
      it('waits for a transaction that links a detector to them, and sees the link', async () => {
        const { workflows, changes, cache } = lendWorkflowCache(db);
        const linking = await begin(link(3));
        const deleting = carryOut(deletion);
        await oneWaits();
        await linking.end();
        const detectors = await deleting;
        expect(detectors).to.have.members(['1', '3']);

        // Had a reader cached the link, this would reach it.
        await changes.linksChanged([3]);
        await workflows.getWorkflowsByDetectors([1, 3], 2);
        await cache.settled();
        await changes.workflowsDeleted(detectors);
        expect(names(await workflows.getWorkflowsByDetectors([1, 3], 2))).to.deep.equal(['w3', '']);
      });

      it('keeps a later transaction from linking them', async () => {
        const deleting = await begin(deletion.lock);
        expect(deleting.result).to.deep.equal(['1']);
        const linking = rejection(db.transaction(link(3)));
        await oneWaits();
        await deleting.end(deletion.delete);
        expect(await linking).to.include({ code: '23503' }); // foreign_key_violation
      });
    });
  }

  it('waits for a transaction that adds a workflow to their environment, and sees its links', async () => {
    const adding = await begin(async (trx) => {
      const [row] = await trx('workflow').insert({ name: 'w6', environment_id: 2 }).returning('id');
      await trx('detector_workflow').insert({ detector_id: 3, workflow_id: row.id });
    });
    const deleting = carryOut(deletions['by their environment']!);
    await oneWaits();
    await adding.end();
    expect(await deleting).to.have.members(['1', '3']);
  });
});
