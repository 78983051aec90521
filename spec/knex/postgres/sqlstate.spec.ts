import { expect } from 'chai';
import { isCommitRefusal, isSqlstate, isTransient, isWithoutSession } from '../../../lib/knex/postgres/sqlstate.js';

const ofServer = (code: string, severity = 'ERROR') => Object.assign(new Error('of the server'), { code, severity });
const ofNode = (code: string) => Object.assign(new Error('of Node'), { code });

describe('an SQLSTATE', () => {
  it('has the name of its most exact entry', () => {
    expect(isSqlstate(ofServer('40P01'), 'deadlock detected')).to.equal(true);
    expect(isSqlstate(ofServer('40P01'), 'transaction rollback')).to.equal(false);
    expect(isSqlstate(ofServer('40002'), 'transaction rollback')).to.equal(true);
    expect(isSqlstate(ofServer('40001'), 'serialization failure')).to.equal(true);
    expect(isSqlstate(ofServer('57P01'), 'shutdown')).to.equal(true);
    expect(isSqlstate(ofServer('57014'), 'query canceled')).to.equal(true);
  });

  for (const [code, transient] of [
    ['08006', true],
    ['40001', true],
    ['40002', true],
    ['53300', true],
    ['55P03', true],
    ['57P01', true],
    ['58030', true],
    ['57014', false],
    ['42883', false],
    ['22P02', false],
    ['P0001', false],
    ['ABCDE', false],
  ] as const) {
    it(`${transient ? 'is' : 'is not'} transient: ${code}`, () => {
      expect(isTransient(ofServer(code))).to.equal(transient);
    });
  }

  it('is not a code of Node’s with five letters: an error of the connection is transient', () => {
    expect(isTransient(ofNode('EPIPE'))).to.equal(true);
    expect(isTransient(ofNode('ECONNRESET'))).to.equal(true);
    expect(isTransient(new Error('Connection terminated unexpectedly'))).to.equal(true);
  });

  it('refuses a COMMIT unless it is of a lost or ended session, or not an ERROR', () => {
    expect(isCommitRefusal(ofServer('23505'))).to.equal(true);
    expect(isCommitRefusal(ofServer('40001'))).to.equal(true);
    for (const code of ['08006', '08P01', '57P01', '58030'])
      expect(isCommitRefusal(ofServer(code)), code).to.equal(false);
    expect(isCommitRefusal(ofServer('23505', 'FATAL'))).to.equal(false);
    expect(isCommitRefusal(ofNode('EPIPE'))).to.equal(false);
  });

  it('tells that there is no session', () => {
    for (const code of ['08001', '28P01', '3D000', '53300', '57P03']) {
      expect(isWithoutSession(ofServer(code, 'FATAL')), code).to.equal(true);
    }
    for (const code of ['42P01', '58030', '53100']) expect(isWithoutSession(ofServer(code)), code).to.equal(false);
  });
});
