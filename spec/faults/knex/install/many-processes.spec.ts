import { expect } from 'chai';
import { eventually } from '../../../support/deferred.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../../support/postgres.js';
import { runProgram } from '../../../support-specs/programs/run.js';

describe('the outbox', () => {
  it('is installed once, with a trigger, by 20 processes at once beside a writer', async () => {
    const db = await lendDatabase({ pool: { max: 20 } });
    await db.raw('create table item (id bigint primary key)');
    const gate = await db.transaction();
    await gate.raw('select pg_advisory_xact_lock(20)');
    const programs = Array.from({ length: 20 }, () =>
      runProgram('spec/programs/installing.ts', [databaseUrl(), schemaOf(db), 'item']),
    );
    await eventually(
      async () => {
        const { rows } = await db.raw<{ rows: unknown[] }>(
          `select from pg_locks where locktype = 'advisory' and objid = 20 and not granted`,
        );
        expect(rows).to.have.length(20);
      },
      { withinMs: 45_000 },
    );
    await gate.rollback();
    const installed = Promise.all(programs.map(({ ended }) => ended));
    let id = 0;
    while (programs.some(({ child }) => child.exitCode === null && child.signalCode === null)) {
      await db('item').insert({ id: ++id });
    }
    expect(await installed).to.deep.equal(Array(20).fill(0));
    await db('item').insert({ id: ++id });
    expect(await db('gencache_outbox').where({ path: `item=${id}` })).to.have.length(1);
    expect(await db('gencache_trigger')).to.have.length(1);
  });
});
