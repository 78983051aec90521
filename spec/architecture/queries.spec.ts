/** Each query of gencache's own goes by `lib/knex/postgres/query.ts`, past the application's hooks and type parsers. */
import { expect } from 'chai';
import { filesBelow, textOf } from './sources.js';

const ONE_PLACE = 'lib/knex/postgres/query.ts';
/** Knex's raw queries, its builders of queries and schemas, and its functions. */
const BY_KNEX =
  /\.raw\s*[<(]|\b(?:db|trx|savepoint|nested|outer|writer\.db)(?:<[^>]*>)?\(|\.(?:schema|queryBuilder|batchInsert|withSchema)\b[.(]/;

describe('the queries of lib/', () => {
  it('go by one function: no other file sends one by Knex itself', () => {
    const strange = filesBelow('lib', '.ts')
      .filter((file) => file !== ONE_PLACE)
      .flatMap((file) =>
        textOf(file)
          .split('\n')
          .map((line, i) => `${file}:${i + 1}: ${line.trim()}`)
          .filter((line) => BY_KNEX.test(line) && !/^\S+ (\*|\/\/|\/\*\*)/.test(line)),
      );
    expect(strange).to.deep.equal([]);
  });

  it('are told from other lines by the pattern of this spec', () => {
    for (const line of [
      'await db.raw(`select 1`)',
      'trx.raw<{ rows: Row[] }>(sql)',
      "await trx('workflow').select('id')",
      "db<Row>('item')",
      "db.schema.hasTable('item')",
    ]) {
      expect(BY_KNEX.test(line), line).to.equal(true);
    }
  });
});
