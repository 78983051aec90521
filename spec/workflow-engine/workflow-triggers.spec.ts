import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../lib/knex/install/install-outbox.js';
import { checkTriggers } from '../../lib/knex/triggers/check-triggers.js';
import { uninstallTriggers } from '../../lib/knex/triggers/remove-triggers.js';
import { installWorkflowTriggers } from '../../lib/workflow-engine/workflow-triggers.js';
import { psql } from '../knex/triggers/psql.js';
import { leftovers, takeEvents, takePaths, takeScopes } from '../knex/triggers/support.js';
import { deferred } from '../support/deferred.js';
import { majorVersion } from '../support/postgres.js';
import { lendWorkflowDatabase, seed } from './support.js';

const cache = 'workflow_engine';

/** A transaction that did something and stays open until it is ended. */
async function begin(
  db: Knex,
  work: (trx: Knex.Transaction) => PromiseLike<unknown>,
  isolationLevel: Knex.IsolationLevels,
): Promise<() => Promise<void>> {
  const begun = deferred();
  const ends = deferred();
  const committed = db.transaction(
    async (trx) => {
      await work(trx);
      begun.resolve();
      await ends.promise;
    },
    { isolationLevel },
  );
  committed.catch(begun.reject);
  await begun.promise;
  return async () => {
    ends.resolve();
    await committed;
  };
}

interface Change {
  readonly how: (db: Knex) => PromiseLike<unknown>;
  readonly scopes: string[];
  /** The first release of PostgreSQL that has its statement, if the oldest supported one lacks it. */
  readonly since?: number;
}

describe('the triggers of the workflow engine', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendWorkflowDatabase();
    await seed(db);
    await installOutbox(db);
    await installWorkflowTriggers(db, { cache });
  });

  it('pass the check, change nothing when installed again, and leave nothing when removed', async () => {
    expect(await checkTriggers(db)).to.deep.equal([]);
    await installWorkflowTriggers(db, { cache });
    expect(await checkTriggers(db)).to.deep.equal([]);
    await uninstallTriggers(db);
    expect(await leftovers(db)).to.deep.equal([]);
  });

  /** What each change bumps; see `seed` for who is linked to what. */
  const lines: Record<string, Record<string, Change>> = {
    'detector updated or deleted': {
      'updated by Knex': {
        how: (db) => db('detector').where('id', 2).update({ enabled: false }),
        scopes: ['detector=2'],
      },
      'updated by raw SQL, two at once': {
        how: (db) => db.raw(`update detector set name = name || '!' where id in (1, 3)`),
        scopes: ['detector=1', 'detector=3'],
      },
      'updated by psql': {
        how: (db) => psql(db, `update detector set type = 'metric' where id = 3;`),
        scopes: ['detector=3'],
      },
      'deleted, with its links': { how: (db) => db('detector').where('id', 2).delete(), scopes: ['detector=2'] },
      'its id changed': {
        how: (db) => db('detector').where('id', 3).update({ id: 33 }),
        scopes: ['detector=3', 'detector=33'],
      },
      'updated by MERGE': {
        how: (db) =>
          db.raw(`merge into detector using (values (1, false), (3, true)) as wanted (id, enabled)
                  on detector.id = wanted.id when matched then update set enabled = wanted.enabled`),
        scopes: ['detector=1'],
        since: 15,
      },
      'updated to what it was': { how: (db) => db('detector').where('id', 2).update({ enabled: true }), scopes: [] },
      'updated where there is none': { how: (db) => db('detector').where('id', 99).update({ name: 'x' }), scopes: [] },
      created: { how: (db) => db('detector').insert({ name: 'd5', type: 'error' }), scopes: [] },
    },
    'workflow updated': {
      'updated in its environment': {
        how: (db) => db('workflow').where('id', 1).update({ enabled: false }),
        scopes: ['detector=1/environment=1', 'detector=2/environment=1'],
      },
      'bound to none, updated by psql': {
        how: (db) => psql(db, `update workflow set config = '{}' where id = 3;`),
        scopes: ['detector=1/environment=~', 'detector=2/environment=~', 'detector=4/environment=~'],
      },
      'moved to another environment': {
        how: (db) => db('workflow').where('id', 2).update({ environment_id: 1 }),
        scopes: ['detector=1/environment=1', 'detector=1/environment=2'],
      },
      'unbound from its environment': {
        how: (db) => db('workflow').where('id', 2).update({ environment_id: null }),
        scopes: ['detector=1/environment=2', 'detector=1/environment=~'],
      },
      'linked to nothing': { how: (db) => db('workflow').where('id', 5).update({ name: 'x' }), scopes: [] },
      'updated to what it was': {
        how: (db) => db.raw('update workflow set config = config, name = name'),
        scopes: [],
      },
      'by ON CONFLICT DO UPDATE, beside a new one': {
        how: (db) =>
          db.raw(`insert into workflow (id, name, environment_id) values (2, 'w2', 2), (70, 'new', 1)
                  on conflict (id) do update set name = excluded.name || '!'`),
        scopes: ['detector=1/environment=2'],
      },
    },
    'workflow created': {
      'by Knex': { how: (db) => db('workflow').insert({ name: 'w6', environment_id: 1 }), scopes: [] },
      'by COPY': {
        how: (db) => psql(db, `copy workflow (name, environment_id) from stdin;\nw6\t1\nw7\t\\N\n\\.\n`),
        scopes: [],
      },
    },
    'link created, deleted or moved': {
      'created by Knex': {
        how: (db) => db('detector_workflow').insert({ detector_id: 3, workflow_id: 5 }),
        scopes: ['detector=3'],
      },
      'created by COPY': {
        how: (db) => psql(db, `copy detector_workflow from stdin;\n3\t5\n3\t4\n4\t5\n\\.\n`),
        scopes: ['detector=3', 'detector=4'],
      },
      'created by ON CONFLICT DO NOTHING, one of two': {
        how: (db) => db.raw('insert into detector_workflow values (1, 1), (3, 1) on conflict do nothing'),
        scopes: ['detector=3'],
      },
      'created, moved and deleted by one MERGE': {
        how: (db) =>
          db.raw(`merge into detector_workflow as link
                  using (values (1, 1, 'drop'), (2, 3, 'move'), (3, 5, 'add')) as wanted (detector, workflow, what)
                  on link.detector_id = wanted.detector and link.workflow_id = wanted.workflow
                  when matched and what = 'drop' then delete
                  when matched then update set detector_id = 3
                  when not matched then insert values (wanted.detector, wanted.workflow)`),
        scopes: ['detector=1', 'detector=2', 'detector=3'],
        since: 15,
      },
      'deleted by psql': {
        how: (db) => psql(db, 'delete from detector_workflow where workflow_id = 3;'),
        scopes: ['detector=1', 'detector=2', 'detector=4'],
      },
      'moved to another detector': {
        how: (db) => db('detector_workflow').where({ detector_id: 2, workflow_id: 1 }).update({ detector_id: 3 }),
        scopes: ['detector=2', 'detector=3'],
      },
      'moved to another workflow': {
        how: (db) => db('detector_workflow').where({ detector_id: 2, workflow_id: 1 }).update({ workflow_id: 5 }),
        scopes: ['detector=2'],
      },
      'by the cascade from a workflow': {
        how: (db) => db('workflow').where('id', 3).delete(),
        scopes: ['detector=1', 'detector=2', 'detector=4'],
      },
      'updated to what it was': {
        how: (db) => db.raw('update detector_workflow set detector_id = detector_id'),
        scopes: [],
      },
    },
    'environment deleted': {
      'with its workflows and their links': {
        how: (db) => db('environment').where('id', 1).delete(),
        scopes: ['detector=1', 'detector=2'],
      },
      renamed: { how: (db) => db('environment').where('id', 1).update({ name: 'x' }), scopes: [] },
    },
    TRUNCATE: Object.fromEntries(
      ['environment', 'detector', 'workflow', 'detector_workflow'].map((table) => [
        `of ${table}`,
        { how: (db: Knex) => db.raw(`truncate ${table} cascade`), scopes: [''] },
      ]),
    ),
  };

  for (const [line, changes] of Object.entries(lines)) {
    describe(line, () => {
      for (const [what, { how, scopes, since }] of Object.entries(changes)) {
        const release = since === undefined ? '' : ` (PostgreSQL ${since} or later)`;
        it(`${what}${release}: ${scopes.map((scope) => scope || 'global').join(', ') || 'nothing'}`, async function () {
          if (since !== undefined && (await majorVersion(db)) < since) this.skip();
          await how(db);
          expect(await takeScopes(db)).to.deep.equal(scopes);
        });
      }
    });
  }

  it('bump the detectors of an environment whose deletion unbinds its workflows', async () => {
    await db.raw(`alter table workflow drop constraint workflow_environment_id_foreign,
                    add foreign key (environment_id) references environment on delete set null`);
    await db('environment').where('id', 2).delete();
    expect(await takeScopes(db)).to.deep.equal(['detector=1/environment=2', 'detector=1/environment=~']);
  });

  it('record one event for the nearest common ancestor of 10,000 detectors whose links move', async () => {
    await db.raw(`insert into detector select i, 'd', 'error' from generate_series(100, 20099) i`);
    await db.raw('insert into detector_workflow select i, 5 from generate_series(100, 10099) i');
    await takeEvents(db);
    await db.raw('update detector_workflow set detector_id = detector_id + 10000 where workflow_id = 5');
    expect(await takePaths(db)).to.deep.equal(['UPDATE ']);
  });

  it('record one event a detector for 10,000 links of three detectors', async () => {
    await db.raw(`insert into workflow (id, name) select i, 'w' from generate_series(100, 20099) i`);
    await db.raw('insert into detector_workflow select 1 + i % 3, i from generate_series(100, 10099) i');
    await takeEvents(db);
    await db.raw('update detector_workflow set workflow_id = workflow_id + 10000 where workflow_id >= 100');
    expect(await takePaths(db)).to.deep.equal(['UPDATE detector=1', 'UPDATE detector=2', 'UPDATE detector=3']);
  });

  it('record one event for each 100 images of changed workflows, and a global one above 1,000', async () => {
    await db.raw(`insert into workflow (id, name, environment_id) select i, 'w', 1 from generate_series(100, 1099) i`);
    await db.raw('update workflow set environment_id = 2 where id between 100 and 224');
    const events = await takeEvents(db);
    expect(events.map(({ path, args }) => [path, (args as unknown[]).length])).to.have.deep.members([
      ['', 100],
      ['', 100],
      ['', 50],
    ]);
    await db.raw('update workflow set environment_id = null where id >= 100');
    expect(await takeEvents(db)).to.have.length(1);
    await db.raw(`update workflow set name = 'x'`);
    const [event, ...others] = await takeEvents(db);
    expect(event).to.include({ path: '', lookup: null, operation: 'UPDATE' });
    expect(others).to.deep.equal([]);
  });

  for (const isolationLevel of ['read committed', 'repeatable read'] as const) {
    it(`miss no scope when one transaction moves a workflow and another links it, ${isolationLevel}`, async () => {
      // Workflow 2 moves from environment 2 to 1 while detector 3 gets linked to it: neither sees the other.
      const commitMove = await begin(
        db,
        async (trx) => {
          await trx.raw('select 1');
          await trx('workflow').where('id', 2).update({ environment_id: 1 });
        },
        isolationLevel,
      );
      const commitLink = await begin(
        db,
        (trx) => trx('detector_workflow').insert({ detector_id: 3, workflow_id: 2 }),
        isolationLevel,
      );
      await commitMove();
      // Resolved between the commits: the link is not seen, and bumps for itself.
      expect(await takeScopes(db)).to.deep.equal(['detector=1/environment=1', 'detector=1/environment=2']);
      await commitLink();
      expect(await takeScopes(db)).to.deep.equal(['detector=3']);
    });

    it(`miss no scope when both events are resolved after the later commit, ${isolationLevel}`, async () => {
      const commitLink = await begin(
        db,
        (trx) => trx('detector_workflow').insert({ detector_id: 3, workflow_id: 2 }),
        isolationLevel,
      );
      const commitMove = await begin(
        db,
        (trx) => trx('workflow').where('id', 2).update({ environment_id: 1 }),
        isolationLevel,
      );
      await commitLink();
      await commitMove();
      expect(await takeScopes(db)).to.include.members([
        'detector=3',
        'detector=3/environment=1',
        'detector=1/environment=1',
      ]);
    });
  }
});
