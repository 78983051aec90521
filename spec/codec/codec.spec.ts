import { expect } from 'chai';
import fc from 'fast-check';
import { isDeepStrictEqual, types } from 'node:util';
import { createContext, runInContext } from 'node:vm';
import sinon from 'sinon';

import { decode, encode } from '../../lib/codec/codec.js';
import { MAX_DEPTH } from '../../lib/codec/encodable.js';
import { UnencodableValueError } from '../../lib/errors/errors.js';

/** Like deepStrictEqual, but it also sees accessors, hidden properties and proxies, and finds NaN Dates equal. */
function identical(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return Object.is(a, b);
  if (types.isProxy(a) || types.isProxy(b) || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (types.isDate(a) && types.isDate(b) && !Object.is(a.getTime(), b.getTime())) return false;
  if (types.isMap(a) && types.isMap(b) && !identical([...a].flat(1), [...b].flat(1))) return false;
  if (types.isSet(a) && types.isSet(b) && !identical([...a], [...b])) return false;
  if (types.isAnyArrayBuffer(a) && types.isAnyArrayBuffer(b)) return Buffer.from(a).equals(Buffer.from(b));
  if (types.isDataView(a) && types.isDataView(b)) return bytesOf(a).equals(bytesOf(b));
  const keys = Reflect.ownKeys(a);
  return (
    String(keys.map(String)) === String(Reflect.ownKeys(b).map(String)) &&
    keys.every((key) => {
      const left = Object.getOwnPropertyDescriptor(a, key)!;
      const right = Object.getOwnPropertyDescriptor(b, key)!;
      const plain = 'value' in left && 'value' in right && left.enumerable === right.enumerable;
      return plain && identical(left.value, right.value);
    })
  );
}

const bytesOf = (view: ArrayBufferView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength);

/** Encodes and decodes, and overwrites the memory of the payload, as a client may. */
function roundTrip(value: unknown): unknown {
  const { tag, bytes } = encode(value);
  const reply = Buffer.concat([Buffer.alloc(3), bytes]).subarray(3);
  const back = decode(tag, reply);
  reply.fill(0xee);
  return back;
}

class Point {
  x = 1;
}
class Names extends Array<string> {}
class Registry extends Map<string, number> {}
class Bytes extends Uint8Array {}

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.constantFrom('\ud800', '\udfff', 'a', '\0') }),
);
const number = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(-0, NaN, Infinity, -Infinity, 5e-324));
const bytes = fc.uint8Array({ maxLength: 80 });

/** A view that starts inside its memory, aligned or not with what follows it in the payload. */
const view = fc
  .tuple(
    fc.constantFrom(
      Int8Array,
      Uint8Array,
      Uint8ClampedArray,
      Int16Array,
      Uint32Array,
      Float32Array,
      Float64Array,
      BigInt64Array,
      BigUint64Array,
      DataView,
    ),
    fc.uint8Array({ minLength: 48, maxLength: 48 }),
    fc.nat(4),
    fc.nat(2),
  )
  .map(
    ([View, memory, length, offset]): unknown => new (View as Uint8ArrayConstructor)(memory.buffer, offset * 8, length),
  );

const leaf = fc.oneof(
  { weight: 3, arbitrary: text },
  { weight: 3, arbitrary: number },
  fc.constantFrom(null, undefined, true, false),
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 2000n), max: 2n ** 2000n }),
  fc.date({ noInvalidDate: false }),
  bytes,
  bytes.map((array) => Buffer.from(array)),
  bytes.map((array) => array.buffer.slice(0)),
  view,
);

const key = fc.oneof(text, fc.constantFrom('__proto__', 'constructor', 'toJSON', 'length', '0', '7', ''));

/** Makes an object by defining its keys, so that `__proto__` is a key like others. */
const record = (value: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.array(fc.tuple(key, value), { maxLength: 6 }).map((entries) => Object.fromEntries(entries));

const containers = (inner: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof(
    record(inner),
    fc.array(inner, { maxLength: 6 }),
    fc.array(inner, { minLength: 33, maxLength: 40 }),
    fc.array(fc.tuple(inner, inner), { maxLength: 4 }).map((entries) => new Map(entries)),
    fc.array(inner, { maxLength: 4 }).map((items) => new Set(items)),
  );

const data = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof({ maxDepth: 4 }, leaf, containers(tie('value'))),
})).value;

/** JSON and Dates only, as nearly every row. */
const rows = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(text, fc.integer(), fc.double({ noDefaultInfinity: true, noNaN: true }), fc.boolean(), fc.constant(null)),
    fc.date({ noInvalidDate: true }),
    record(tie('value')),
    fc.array(tie('value'), { maxLength: 6 }),
  ),
})).value;

describe('codec', function () {
  this.timeout(60_000); // beside other runs a property took more than 20 s

  describe('a round trip', () => {
    const is = (value: unknown): void => {
      expect(identical(value, roundTrip(value))).to.equal(true);
    };

    it('keeps any data identical', () => {
      fc.assert(fc.property(data, is), { seed: 1, numRuns: 3_000 });
    });

    it('keeps JSON with Dates identical', () => {
      fc.assert(fc.property(rows, is), { seed: 2, numRuns: 4_000 });
    });

    it('keeps any value identical, or encode refuses it', () => {
      const anything = fc.anything({
        withBigInt: true,
        withBoxedValues: true,
        withDate: true,
        withMap: true,
        withNullPrototype: true,
        withSet: true,
        withSparseArray: true,
        withTypedArray: true,
        values: [leaf, fc.constantFrom(Symbol('s'), () => 1, new Point(), /x/, new Error('x'))],
      });
      let refused = 0;
      const outcome = (value: unknown): void => {
        try {
          is(value);
        } catch (error) {
          if (!(error instanceof UnencodableValueError)) throw error;
          refused++;
        }
      };
      fc.assert(fc.property(anything, outcome), { seed: 3, numRuns: 4_000 });
      expect(refused).to.be.within(400, 3_600);
    });

    it('keeps a million elements identical', () => {
      for (const value of [Array.from({ length: 1_000_000 }, (_, index) => index), Buffer.alloc(1_000_000, 'abc')]) {
        expect(isDeepStrictEqual(roundTrip(value), value)).to.equal(true);
      }
    });

    it(`keeps ${MAX_DEPTH} nested levels identical`, () => {
      is(nested(MAX_DEPTH - 1, {}));
      is(nested(MAX_DEPTH - 2, { at: new Date(0) }));
      is(nested(MAX_DEPTH - 1, [undefined]));
    });

    it('keeps a Date made under fake timers identical', () => {
      const clock = sinon.useFakeTimers({ toFake: ['Date'], now: 1_790_000_000_000 });
      try {
        is({ at: new Date() });
      } finally {
        clock.restore();
      }
    });

    it('keeps frozen values, and values that hold one object twice, identical', () => {
      const shared = { at: new Date(0) };
      is(Object.freeze([shared, shared]));
      is([shared, shared, undefined]);
    });
  });

  describe('a payload', () => {
    it('is JSON, JSON with Dates, or rich: the smallest form that keeps the value', () => {
      const tag = (value: unknown): string => encode(value).tag;
      expect([1, 'x', null, [{ a: [] }]].map(tag)).to.deep.equal(['j', 'j', 'j', 'j']);
      expect([new Date(0), { a: [new Date(0)] }].map(tag)).to.deep.equal(['d', 'd']);
      expect([undefined, -0, 1n, new Map(), [new Date(0), new Date(NaN)]].map(tag)).to.deep.equal(Array(5).fill('v'));
    });

    it('shares no memory with the value that is decoded from it', () => {
      const value = [
        Buffer.from('abc'),
        new Uint8Array([1, 2]),
        new Float64Array([1.5]),
        new DataView(new ArrayBuffer(3)),
      ];
      const { tag, bytes: payload } = encode(value);
      const views = decode(tag, payload) as ArrayBufferView[];
      expect(views.map((each) => each.buffer === payload.buffer)).to.deep.equal([false, false, false, false]);
      payload.fill(0);
      expect(identical(value, views)).to.equal(true);
    });

    it('does not depend on toJSON methods that libraries add to prototypes', () => {
      const value = { list: [1], at: new Date(0) };
      for (const prototype of [Array.prototype, Object.prototype, Date.prototype]) {
        const before = Object.getOwnPropertyDescriptor(prototype, 'toJSON');
        Object.defineProperty(prototype, 'toJSON', { value: () => 'changed', configurable: true });
        try {
          expect(identical(value, roundTrip(value))).to.equal(true);
        } finally {
          delete (prototype as { toJSON?: unknown }).toJSON;
          if (before !== undefined) Object.defineProperty(prototype, 'toJSON', before);
        }
      }
    });

    const malformed: readonly (readonly [what: string, tag: string, payload: string | Buffer])[] = [
      ['an unknown tag', 'x', '1'],
      ['an empty payload', 'j', ''],
      ['cut JSON', 'j', '{"a":'],
      ['dates that are no pair', 'd', '[[]]'],
      ['a date that is no text', 'd', '[[["a"]],{"a":1}]'],
      ['a date that is no date', 'd', '[[["a"]],{"a":"x"}]'],
      ['a date at no place', 'd', '[[["b"]],{"a":"x"}]'],
      ['a date below a text', 'd', '[[["a","b"]],{"a":"x"}]'],
      ['a date in a prototype', 'd', '[[["__proto__","x"]],{"a":"2026-11-01T00:00:00.000Z"}]'],
      ['dates that are no list', 'd', '[1,1]'],
      ['no header of V8', 'v', Buffer.from('30', 'hex')],
      ['a newer format of V8', 'v', Buffer.from('ff7f30', 'hex')],
      ['a cut rich payload', 'v', encode([1n, 2n]).bytes.subarray(0, -3)],
      ['bytes after a rich payload', 'v', Buffer.concat([encode([1n]).bytes, Buffer.alloc(1)])],
      ['a view of an unknown type', 'v', Buffer.from('ff0f5c630161', 'hex')],
    ];
    for (const [what, tag, payload] of malformed) {
      it(`makes decode throw on ${what}`, () => {
        expect(() => decode(tag, Buffer.from(payload))).to.throw();
      });
    }
  });

  describe('encode, with the path and a remedy,', () => {
    const RULE = 'A cached value must come back from the store exactly as it was, but ';
    const define = (target: object, name: PropertyKey, property: PropertyDescriptor): object =>
      Object.defineProperty(target, name, { enumerable: true, configurable: true, ...property });
    const instance = 'Store its plain data, and build the instance after the read.';
    const beside = 'Store the property beside it.';
    const steady = 'Store a copy: Buffer.from(bytes), or typedArray.slice().';
    const read = 'Store what it returns: { ...object } or [...array] reads it.';
    const long = Array<number>(1_000).fill(1);
    const cycle: Record<string, unknown> = { id: 1 };
    cycle['links'] = [{ to: cycle }];
    const detached = new ArrayBuffer(8);
    structuredClone(detached, { transfer: [detached] });

    const refused: readonly (readonly [what: string, value: unknown, path: string, rest: string])[] = [
      ['a function', { a: [() => 1] }, 'value.a[0]', 'a function. Leave it out, or store the data it is made from.'],
      [
        'a toJSON method',
        { toJSON: () => 1 },
        'value.toJSON',
        'a function. Leave it out, or store the data it is made from.',
      ],
      ['a symbol', [Symbol('s')], 'value[0]', 'the symbol Symbol(s). Store a string in its place.'],
      [
        'a symbol key',
        [{ [Symbol('s')]: 1 }],
        'value[0]',
        'an object with the key Symbol(s). Use a string key, or leave the property out.',
      ],
      ['a getter', define({}, 'a', { get: () => 1 }), 'value.a', `an accessor. ${read}`],
      ['a setter', define({}, 'a', { set: () => 1 }), 'value.a', `an accessor. ${read}`],
      ['a getter in an array', define([1], 0, { get: () => 1 }), 'value[0]', `an accessor. ${read}`],
      [
        'a hidden property',
        define({}, 'a b', { value: 1, enumerable: false }),
        'value["a b"]',
        'not enumerable. Leave it out, or make it enumerable.',
      ],
      [
        'arguments',
        (function () {
          return arguments;
        })(),
        'value',
        'an object with the key Symbol(Symbol.iterator). Use a string key, or leave the property out.',
      ],
      ['a hole', Object.assign([1], { 2: 3 }), 'value[1]', 'a hole in an array. Fill it with null or undefined.'],
      [
        'a sparse array',
        Object.assign([], { 4_000_000_000: 1 }),
        'value[0]',
        'a hole in an array. Fill it with null or undefined.',
      ],
      [
        'an object without a prototype',
        { a: Object.create(null) as unknown },
        'value.a',
        'an object without a prototype. Copy it into a plain object: { ...object }.',
      ],
      ['a class instance', { a: new Point() }, 'value.a', `an instance of Point. ${instance}`],
      [
        'an instance of an unnamed class',
        new (class {
          x = 1;
        })(),
        'value',
        `an instance of an unnamed class. ${instance}`,
      ],
      [
        'an Error of another realm',
        runInContext('new Error()', createContext()),
        'value',
        `an instance of Error of another realm. ${instance}`,
      ],
      ['a subclass of Array', Names.from(['a']), 'value', `an instance of Names. ${instance}`],
      ['a subclass of Map', new Registry(), 'value', `an instance of Registry. ${instance}`],
      ['a subclass of Uint8Array', new Bytes(3), 'value', `an instance of Bytes. ${instance}`],
      ['a false Date', Object.create(Date.prototype), 'value', `an instance of Date. ${instance}`],
      ['a boxed number', [Object(1)], 'value[0]', `an instance of Number. ${instance}`],
      ['a boxed string', [Object('a')], 'value[0]', `an instance of String. ${instance}`],
      ['a boxed bigint', [Object(1n)], 'value[0]', `an instance of BigInt. ${instance}`],
      ['an Error', { error: new TypeError('x') }, 'value.error', `an instance of TypeError. ${instance}`],
      ['a RegExp', /x/g, 'value', `an instance of RegExp. ${instance}`],
      ['a URL', new URL('https://example.org'), 'value', `an instance of URL. ${instance}`],
      ['a Promise', [Promise.resolve(1)], 'value[0]', `an instance of Promise. ${instance}`],
      ['a WeakMap', new WeakMap(), 'value', `an instance of WeakMap. ${instance}`],
      ['a Proxy', { a: new Proxy({}, {}) }, 'value.a', 'a Proxy. Store a plain copy of its target.'],
      [
        'a property on an array',
        Object.assign([1], { total: 1 }),
        'value',
        `of type Array and has the property total. ${beside}`,
      ],
      [
        'a property on a long array',
        [Object.assign([...long], { total: 1 })],
        'value[0]',
        `of type Array and has the property total. ${beside}`,
      ],
      [
        'a symbol on a long array',
        Object.assign([...long], { [Symbol('s')]: 1 }),
        'value',
        `of type Array and has the property Symbol(s). ${beside}`,
      ],
      [
        'a hidden property on a long array',
        define([...long], 'total', { value: 1, enumerable: false }),
        'value',
        `of type Array and has the property total. ${beside}`,
      ],
      [
        'a property on a Date',
        Object.assign(new Date(0), { zone: 'UTC' }),
        'value',
        `of type Date and has the property zone. ${beside}`,
      ],
      [
        'a property on a Map',
        Object.assign(new Map(), { total: 1 }),
        'value',
        `of type Map and has the property total. ${beside}`,
      ],
      [
        'a property on a Set',
        Object.assign(new Set(), { total: 1 }),
        'value',
        `of type Set and has the property total. ${beside}`,
      ],
      [
        'a property on a Buffer',
        Object.assign(Buffer.from('abc'), { type: 'x' }),
        'value',
        `of type Buffer and has the property type. ${beside}`,
      ],
      [
        'a property on a long Buffer',
        Object.assign(Buffer.alloc(1_000), { type: 'x' }),
        'value',
        `of type Buffer and has the property type. ${beside}`,
      ],
      [
        'a property on a long Float64Array',
        Object.assign(new Float64Array(99), { unit: 's' }),
        'value',
        `of type Float64Array and has the property unit. ${beside}`,
      ],
      [
        'a property on an ArrayBuffer',
        Object.assign(new ArrayBuffer(1), { type: 'x' }),
        'value',
        `of type ArrayBuffer and has the property type. ${beside}`,
      ],
      ['a SharedArrayBuffer', new SharedArrayBuffer(1), 'value', `an instance of SharedArrayBuffer. ${instance}`],
      [
        'a view on shared memory',
        new Uint8Array(new SharedArrayBuffer(1)),
        'value',
        `memory that is shared or resizable. ${steady}`,
      ],
      [
        'in a Map, by key',
        new Map([['k', [() => 1]]]),
        'value.get("k")[0]',
        'a function. Leave it out, or store the data it is made from.',
      ],
      [
        'in a Map, below an object',
        { a: new Map([[{}, Symbol()]]) },
        '[...value.a.values()][0]',
        'the symbol Symbol(). Store a string in its place.',
      ],
      [
        'in the key of a Map',
        new Map([[Symbol('k'), 1]]),
        '[...value.keys()][0]',
        'the symbol Symbol(k). Store a string in its place.',
      ],
      [
        'in a Set',
        { ids: new Set([1, () => 1]) },
        '[...value.ids][1]',
        'a function. Leave it out, or store the data it is made from.',
      ],
      [
        'a cycle',
        { a: cycle },
        'value.a.links[0].to',
        'the object at value.a again, a cycle. Store an id in place of the reference.',
      ],
      [
        '100,000 levels',
        nested(100_000, {}),
        'value.a.a.a.a.a.a.a.a…(488 more)….a.a.a.a',
        'nested more than 500 levels deep. Flatten the value, or store its parts by id.',
      ],
    ];
    for (const [what, value, path, rest] of refused) {
      it(`refuses ${what}`, () => {
        const { error } = attempt(() => encode(value));
        expect(error).to.be.instanceOf(UnencodableValueError);
        expect(error).to.deep.include({ code: 'UNENCODABLE_VALUE', path, message: `${RULE}${path} is ${rest}` });
      });
    }

    it('refuses detached memory', () => {
      expect(() => encode([detached])).to.throw(
        UnencodableValueError,
        /^A cached value must be small enough to serialize at once, but got .+\. Store less, in several entries\.$/,
      );
    });
  });
});

function nested(levels: number, innermost: unknown): unknown {
  let value = innermost;
  for (let level = 0; level < levels; level++) value = { a: value };
  return value;
}

function attempt(run: () => unknown): { readonly error: unknown } {
  try {
    run();
  } catch (error) {
    return { error };
  }
  return { error: undefined };
}
