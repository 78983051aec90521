import { expect } from 'chai';
import fc from 'fast-check';
import { isDeepStrictEqual, types } from 'node:util';
import { ABSENT, open, seal } from '../../lib/codec/envelope.js';
import { SharedValue } from '../../lib/codec/shared-value.js';

const KEY = 'key';

/** A decoded value, as a lookup has it, and its shared form. */
function shared(value: unknown) {
  const bytes = seal(KEY, value);
  const opened = open(KEY, bytes);
  if (!opened.ok) throw new Error(opened.message);
  return {
    first: opened.value,
    of: SharedValue.of(KEY, bytes, opened.value),
    later: new SharedValue(KEY, bytes),
    bytes,
  };
}

/** Each object in a value, by depth first. */
function* objectsIn(value: unknown): Generator<object> {
  if (typeof value !== 'object' || value === null) return;
  yield value;
  if (types.isMap(value)) for (const [key, item] of value) yield* [...objectsIn(key), ...objectsIn(item)];
  else if (types.isSet(value)) for (const item of value) yield* objectsIn(item);
  else if (!ArrayBuffer.isView(value)) for (const item of Object.values(value)) yield* objectsIn(item);
}

const NAME = fc.oneof(fc.string({ maxLength: 3 }), fc.constant('__proto__'));
const SCALAR = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null), fc.date({ noInvalidDate: true }));
const RICH = fc.oneof(
  fc.constantFrom(undefined, NaN, 1n),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  fc.array(fc.tuple(fc.string(), fc.date())).map((items) => new Map(items)),
);
const tree = (leaf: fc.Arbitrary<unknown>) =>
  fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie('tree'), { maxLength: 4 }),
      fc.array(fc.tuple(NAME, tie('tree')), { maxLength: 4 }).map(Object.fromEntries),
    ),
  })).tree;

describe('a shared value', () => {
  it('is the same for each reader, of whom two share nothing that can be changed', () => {
    const values = fc.oneof(tree(SCALAR), tree(fc.oneof(SCALAR, RICH)));
    fc.assert(
      fc.property(values, (value) => {
        const { first, of, later, bytes } = shared(value);
        const given = [first, of.give(), of.give(), later.give(), later.give()];
        bytes.fill(0xee); // memory that a client uses again
        given.push(of.give());
        for (const each of given) expect(isDeepStrictEqual(each, value)).to.equal(true);
        const seen = new Set<object>();
        for (const each of given) {
          const own = [...objectsIn(each)];
          for (const object of own) {
            if (seen.has(object)) expect(Object.isFrozen(object) && !types.isDate(object)).to.equal(true);
          }
          for (const object of own) seen.add(object);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('is one object for all readers where it is JSON, and a copy of a row with a Date, the rest of it shared', () => {
    const { of } = shared([{ at: new Date(1), tags: ['a'] }, { tags: ['b'] }]);
    const [one, other] = [of.give(), of.give()] as { at: Date; tags: string[] }[][];
    expect(one).to.not.equal(other);
    expect(one![0]).to.not.equal(other![0]);
    expect(one![0]!.at).to.not.equal(other![0]!.at);
    expect(one![0]!.tags).to.equal(other![0]!.tags);
    expect(one![1]).to.equal(other![1]);
    const json = shared({ a: [{ b: 1 }] }).of;
    expect(json.give()).to.equal(json.give());
  });

  it('may be an absence', () => {
    const { of, later } = shared(ABSENT);
    expect([of.give(), later.give()]).to.deep.equal([ABSENT, ABSENT]);
  });
});
