import { expect } from 'chai';
import { statementText } from '../../../lib/knex/coverage/statement-text.js';

const divided = (sql: string) => {
  const text = statementText(sql);
  return [text.with((number) => `<${number}>`), text.several, text.verb] as const;
};

describe('statementText', () => {
  it('finds parameters where PostgreSQL does', () => {
    expect(divided('select $1, $12 + $1')).to.deep.equal(['select <1>, <12> + <1>', false, 'select']);
    for (const quoted of [
      `'$1;'`,
      `'it''s $1;'`,
      `E'\\'$1;'`,
      `"a$1;"`,
      `$$ $1; $$`,
      `$tag$ $1; $$ $tag$`,
      `/* $1; /* $2 */ ; */ 1`,
      `1 -- $1;\n`,
      `a$1`,
    ]) {
      const sql = `select ${quoted}`;
      expect(divided(sql), sql).to.deep.equal([sql, false, 'select']);
    }
  });

  it('finds a second statement, and leaves a semicolon at the end out', () => {
    expect(divided('select 1; ')).to.deep.equal(['select 1', false, 'select']);
    expect(divided('select 1; -- done\n /* really */')).to.deep.equal(['select 1', false, 'select']);
    expect(divided('select 1; delete from a')[1]).to.equal(true);
  });

  it('finds the first word', () => {
    expect(divided('  -- a\n/* b */ ( WITH a as (select 1) select 2)')[2]).to.equal('with');
    expect(divided('')[2]).to.equal('');
  });
});
