import { expect } from 'chai';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';

describe('the scopes that a process remembers', () => {
  const remember = (scopes: ScopeRegistry, id: number) =>
    scopes.root.child('item', id) ?? scopes.remember(scopes.root, 'item', id, `item=${id}`);

  it('have one object each, which their canonical ids find', () => {
    const scopes = new ScopeRegistry(['p:'], 10);
    const one = remember(scopes, 1);
    expect(remember(scopes, 1)).to.equal(one);
    expect(scopes.root.child('item', '1')).to.equal(undefined);
    expect(scopes.root.child('other', 1)).to.equal(undefined);
    expect(one.lineage.map(({ path }) => path)).to.deep.equal(['', 'item=1']);
    expect(one.generationKey).to.equal('p:g:item=1');
  });

  it('are bounded: the registry forgets the oldest, and makes it anew on demand', () => {
    const scopes = new ScopeRegistry(['p:'], 3);
    const [one, two] = [1, 2, 3, 4].map((id) => remember(scopes, id));
    expect(scopes.root.child('item', 1)).to.equal(undefined);
    expect(remember(scopes, 2)).to.equal(two);
    const again = remember(scopes, 1);
    expect(again).to.not.equal(one);
    expect(again.path).to.equal('item=1');
    // The new scope displaces the oldest one.
    expect(scopes.root.child('item', 2)).to.equal(undefined);
    expect(scopes.root.child('item', 4)).to.not.equal(undefined);
  });

  it('are forgotten with their parent, and leave the parent’s successor alone when their turn comes', () => {
    const scopes = new ScopeRegistry(['p:'], 3);
    const parent = remember(scopes, 1);
    scopes.remember(parent, 'part', 7, 'item=1/part=7');
    remember(scopes, 2);
    remember(scopes, 3); // forgets item=1
    const anew = remember(scopes, 1); // forgets item=1/part=7, of the old parent
    expect(anew.child('part', 7)).to.equal(undefined);
    scopes.remember(anew, 'part', 7, 'item=1/part=7'); // forgets item=2
    expect(scopes.root.child('item', 1)).to.equal(anew);
    expect(anew.child('part', 7)!.lineage[1]).to.equal(anew);
  });
});
