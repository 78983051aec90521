import { expect } from 'chai';
import fc from 'fast-check';
import { editDistance, nearestName } from '../../lib/errors/nearest-name.js';

describe('nearestName', () => {
  const names = ['org', 'environment', 'project', 'flag'];

  for (const [typed, meant] of [
    ['ogr', 'org'],
    ['orgs', 'org'],
    ['Org', 'org'],
    ['organization', 'org'],
    ['env', 'environment'],
    ['enviroment', 'environment'],
    ['flags', 'flag'],
    ['porject', 'project'],
  ] as const) {
    it(`finds ${meant} for ${typed}`, () => expect(nearestName(typed, names)).to.equal(meant));
  }

  for (const typed of ['tenant', 'user', 'or', 'x', '']) {
    it(`finds nothing for ${JSON.stringify(typed)}`, () => {
      expect(nearestName(typed, ['environment', 'project', 'customer'])).to.equal(undefined);
    });
  }

  it('prefers the nearer of two names', () => expect(nearestName('item', ['items2', 'items'])).to.equal('items'));
});

describe('editDistance', () => {
  it('counts a swap of neighbours once', () => {
    expect(editDistance('ab', 'ba')).to.equal(1);
    expect(editDistance('abcdef', 'bacdfe')).to.equal(2);
  });

  it('is 0 for equal texts alone, symmetric, and at most the longer length', () => {
    const word = fc.string({ maxLength: 8 });
    fc.assert(
      fc.property(word, word, (a, b) => {
        const distance = editDistance(a, b);
        expect(distance === 0).to.equal(a === b);
        expect(distance).to.equal(editDistance(b, a)).and.at.most(Math.max(a.length, b.length));
        expect(distance).to.be.at.least(Math.abs(a.length - b.length));
      }),
    );
  });
});
