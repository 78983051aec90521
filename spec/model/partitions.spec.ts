import { expect } from 'chai';
import fc from 'fast-check';
import { memoryStore } from '../../lib/index.js';
import { keyPrefix, partitionOf } from '../../lib/model/key.js';
import { Partitions } from '../../lib/ports/partitions.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import { partitioned } from '../support/stores.js';

describe('the partitions of a cache', () => {
  const located = (paths: string[], count = 64) =>
    new Partitions(partitioned(memoryStore(), count), 'shop').locate(paths).map(({ generationKey }) => generationKey);

  it('stand in the keys with their number, unless there is one', () => {
    expect(keyPrefix('shop')).to.equal('gencache:{shop:0}:');
    expect(keyPrefix('shop', 0, 1)).to.equal('gencache:{shop:0}:');
    expect(keyPrefix('shop', 17, 64)).to.equal('gencache:{shop:17/64}:');
  });

  it('stay where they are: a release that moves a scope to another partition fails here', () => {
    expect(located(['detector=42', 'detector=43/environment=7', 'tag=a', 'tag=~'])).to.deep.equal([
      'gencache:{shop:28/64}:g:detector=42',
      'gencache:{shop:47/64}:g:detector=43/environment=7',
      'gencache:{shop:17/64}:g:tag=a',
      'gencache:{shop:60/64}:g:tag=~',
    ]);
    expect(located(['detector=42'], 1)).to.deep.equal(['gencache:{shop:0}:g:detector=42']);
  });

  it('hold a whole tree below the first id', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.integer({ min: 1, max: 1_024 }), (first, rest, count) => {
        const segment = `n=${first.replaceAll('/', '')}`;
        const partition = partitionOf(segment, count);
        expect(partition).to.be.within(0, count - 1);
        expect(partitionOf(`${segment}/m=${rest}`, count)).to.equal(partition);
      }),
    );
  });

  it('share scopes evenly', () => {
    const counts = new Map<number, number>();
    for (let id = 0; id < 64_000; id++) {
      const partition = partitionOf(`detector=${id}`, 64);
      counts.set(partition, (counts.get(partition) ?? 0) + 1);
    }
    expect(counts.size).to.equal(64);
    expect(Math.min(...counts.values())).to.be.above(800);
    expect(Math.max(...counts.values())).to.be.below(1_200);
  });

  it('have a copy of the global generation each', () => {
    expect(located(['', 'detector=42'], 3)).to.deep.equal([
      'gencache:{shop:0/3}:g:',
      'gencache:{shop:1/3}:g:',
      'gencache:{shop:2/3}:g:',
      `gencache:{shop:${partitionOf('detector=42', 3)}/3}:g:detector=42`,
    ]);
  });

  it('are found in a key by their number, whatever the name of the cache', () => {
    for (const cache of ['shop', 'a.b-c_1', '0']) {
      const partitions = new Partitions(partitioned(memoryStore(), 1_024), cache);
      for (const { index, prefix } of partitions.list) expect(partitions.ofKey(`${prefix}e:1:x=1/2`)).to.equal(index);
    }
  });

  it('give each scope the global generation of its own partition, and forget the oldest scope as before', () => {
    const prefixes = [0, 1, 2, 3].map((index) => keyPrefix('shop', index, 4));
    const scopes = new ScopeRegistry(prefixes, 8);
    const remember = (id: number) => scopes.root.child('d', id) ?? scopes.remember(scopes.root, 'd', id, `d=${id}`);
    const remembered = Array.from({ length: 8 }, (_, id) => remember(id));
    for (const scope of remembered) {
      expect(scope.lineage[0]!.generationKey).to.equal(`${prefixes[partitionOf(scope.path, 4)]!}g:`);
      expect(scope.generationKey).to.equal(`${prefixes[partitionOf(scope.path, 4)]!}g:${scope.path}`);
      expect(remember(Number(scope.path.slice(2)))).to.equal(scope);
    }
    remember(9);
    expect(scopes.root.child('d', 0)).to.equal(undefined);
    expect(scopes.root.child('d', 1)).to.equal(remembered[1]);
  });
});
