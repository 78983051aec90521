import { expect } from 'chai';
import { isDeepStrictEqual } from 'node:util';
import { runInContext, runInNewContext, runInThisContext } from 'node:vm';

import type * as codec from '../../lib/codec/codec.js';
import { decode, encode } from '../../lib/codec/codec.js';
import { type Realm, realmOf } from '../support/realm.js';

/** A value of each kind that can be cached, as source text. */
const KINDS = [
  '({ a: 1, b: [1, "x", null] })',
  '[[1, 2], { a: [] }]',
  '[new Date(0), { at: new Date(1_790_000_000_000) }, undefined]',
  'new Map([["a", new Map([[{ id: 1 }, new Set([[1]])]])], ["b", new Date(0)]])',
  'new Set([{ a: 1n }, [new Date(0)]])',
  '({ bytes: new Uint8Array([1, 2, 3]), view: new DataView(new ArrayBuffer(4)), memory: new ArrayBuffer(3) })',
  '[new Float64Array([1.5]), new BigInt64Array([1n]), new Uint8ClampedArray([300]), new Int16Array(40)]',
  '(() => { const shared = { at: new Date(0) }; return [shared, shared, undefined]; })()',
];

const through = ({ encode, decode }: typeof codec, value: unknown): unknown => {
  const { tag, bytes } = encode(value);
  return decode(tag, bytes);
};

describe('a codec that runs in a realm of its own, as in Jest', () => {
  let realm: Realm;
  let there: typeof codec;

  before(() => {
    realm = realmOf({}, 'lib/codec/codec.ts');
    there = realm.load('lib/codec/codec.ts') as typeof codec;
    // Compares with the realm's own prototypes, which the main realm's isDeepStrictEqual only compares with each other.
    realm.globals['isDeepStrictEqual'] = isDeepStrictEqual;
  });

  const inRealm = (source: string, value?: unknown): unknown => {
    realm.globals['value'] = value;
    return runInContext(source, realm.globals);
  };

  for (const source of KINDS) {
    it(`gives ${source} back with the prototypes of that realm`, () => {
      const back = through(there, inRealm(source));
      expect(inRealm(`isDeepStrictEqual(value, ${source})`, back)).to.equal(true);
      expect(isDeepStrictEqual(back, runInNewContext(source)), 'a value of a third realm').to.equal(false);
    });

    it(`gives the main realm's ${source} back with the prototypes of that realm`, () => {
      const back = through(there, runInNewContext(source));
      expect(inRealm(`isDeepStrictEqual(value, ${source})`, back)).to.equal(true);
    });
  }

  it('encodes what it decoded: a cached value inside another one', () => {
    const source = 'new Map([["a", { at: new Date(0) }], ["b", new Date(0)]])';
    const nested = through(there, inRealm(`({ inner: value })`, through(there, inRealm(source))));
    expect(inRealm(`isDeepStrictEqual(value, { inner: ${source} })`, nested)).to.equal(true);
    expect(inRealm(`value.inner instanceof Map && value.inner.get('b') instanceof Date`, nested)).to.equal(true);
  });

  it('keeps a Buffer, which realms share', () => {
    const back = through(there, [Buffer.from('abc'), undefined]) as unknown[];
    expect(back[0]).to.be.instanceOf(Buffer).and.deep.equal(Buffer.from('abc'));
  });

  it('refuses an instance of a class, of that realm or of the main one', () => {
    expect(() => there.encode(inRealm('new (class Point { x = 1 })()'))).to.throw('an instance of Point');
    expect(() => there.encode(new URL('https://example.org'))).to.throw('an instance of URL');
  });
});

describe('a value of another realm', () => {
  for (const source of KINDS) {
    it(`comes back as one of this realm: ${source}`, () => {
      const back = through({ encode, decode } as typeof codec, runInNewContext(source));
      const own: unknown = runInThisContext(source);
      expect(isDeepStrictEqual(back, own)).to.equal(true);
    });
  }

  it('comes back as it was, whatever toJSON its realm has added to prototypes', () => {
    const value: unknown = runInNewContext(
      'Object.prototype.toJSON = Array.prototype.toJSON = () => "changed"; ({ a: [1] })',
    );
    expect(through({ encode, decode } as typeof codec, value)).to.deep.equal({ a: [1] });
  });

  it('is refused with its name if it is no data', () => {
    expect(() => encode(runInNewContext('/x/g'))).to.throw('value is an instance of RegExp of another realm');
    expect(() => encode({ a: runInNewContext('new (class Map extends globalThis.Map {})()') })).to.throw(
      'value.a is an instance of Map of another realm',
    );
    expect(() => encode(runInNewContext('function Object() {}; new Object()'))).to.throw('an instance of Object');
  });
});
