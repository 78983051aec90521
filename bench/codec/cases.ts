/** Values that some codec returns changed. Each is asked of every candidate: identical, or refused? */
class Point {
  x = 1;
}
class Names extends Array<string> {}
class Registry extends Map<string, number> {}
class Bytes extends Uint8Array {}

const define = (target: object, key: PropertyKey, property: PropertyDescriptor): object =>
  Object.defineProperty(target, key, property);

function nested(depth: number): object {
  let value: object = {};
  for (let level = 0; level < depth; level++) value = { child: value };
  return value;
}

function cyclic(): object {
  const value: Record<string, unknown> = { id: 1 };
  value['self'] = value;
  return value;
}

const memory = new ArrayBuffer(64);
new Uint8Array(memory).set(Array.from({ length: 64 }, (_, index) => index));
const lastIndex = Object.assign(/a/g, { lastIndex: 2 });

export const CASES: Readonly<Record<string, () => unknown>> = {
  null: () => null,
  undefined: () => undefined,
  'undefined property': () => ({ a: undefined }),
  'undefined element': () => [undefined, 1],
  '-0': () => -0,
  '-0 inside': () => [{ a: -0 }],
  NaN: () => ({ a: NaN }),
  Infinity: () => [Infinity, -Infinity],
  'smallest and largest number': () => [5e-324, Number.MAX_VALUE, 2 ** 53 + 2, 0.1 + 0.2],
  bigint: () => ({ a: 42n }),
  'bigint of 64 bits': () => [2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n - 1n],
  'bigint of 4,000 bits': () => [2n ** 4000n, -(2n ** 4000n)],
  'lone surrogate': () => ({ a: 'x\ud800y' }),
  'lone surrogate in a key': () => ({ '\udc00': 1 }),
  'emoji, NUL, BOM, line separators': () => ['😀', '\u0000', '\ufeffx', '\u2028\u2029'],
  'lone surrogate beside a bigint': () => ['x\ud800y', 1n],
  '__proto__ key beside a bigint': () => [JSON.parse('{"__proto__":{"a":1}}'), 1n] as unknown,
  'empty key': () => ({ '': 1 }),
  '__proto__ key': () => JSON.parse('{"__proto__":{"a":1},"b":2}') as unknown,
  'constructor key': () => ({ constructor: 'x', prototype: 1, toString: 2, hasOwnProperty: 3 }),
  'keys that look like indices': () => ({ 2: 'b', 1: 'a', x: 'c' }),
  'object without a prototype': () => Object.assign(Object.create(null) as object, { a: 1 }),
  'class instance': () => ({ a: new Point() }),
  'subclass of Array': () => Names.from(['a']),
  'subclass of Map': () => new Registry([['a', 1]]),
  'subclass of Uint8Array': () => new Bytes(3),
  'symbol key': () => ({ a: 1, [Symbol('s')]: 2 }),
  symbol: () => [Symbol('s')],
  function: () => ({ a: () => 1 }),
  'getter': () => ({ get a() { return 1; } }), // prettier-ignore
  setter: () => define({}, 'a', { set: () => undefined, enumerable: true, configurable: true }),
  'non-enumerable property': () => define({ b: 1 }, 'a', { value: 1, enumerable: false }),
  'toJSON method': () => ({ a: 1, toJSON: () => ({ a: 2 }) }),
  'toJSON data': () => ({ toJSON: 1 }),
  'sparse array': () => [1, , 3], // eslint-disable-line no-sparse-arrays
  'very sparse array': () => Object.assign([], { 1_000_000: 1 }) as unknown,
  'trailing holes': () => Object.assign([], { length: 3 }) as unknown,
  'property on an array': () => Object.assign([1, 2], { total: 2 }),
  'match of a regular expression': () => /b/.exec('abc'),
  'getter on an array': () => define([1], 0, { get: () => 1, enumerable: true, configurable: true }),
  Date: () => ({ at: new Date(1_790_000_000_123) }),
  'Date before 1 and after 9999': () => [new Date(-8.64e15), new Date(8.64e15)],
  'invalid Date': () => new Date(NaN),
  'property on a Date': () => Object.assign(new Date(0), { zone: 'UTC' }),
  'ISO text that is not a Date': () => ({ at: '2026-11-01T00:00:00.000Z' }),
  'Map': () => new Map<unknown, unknown>([['a', 1], [1, 'b'], [{ k: 1 }, new Map([[null, undefined]])]]), // prettier-ignore
  'Map with NaN and undefined keys': () => new Map([[NaN, 1], [undefined, 2]]), // prettier-ignore
  Set: () => new Set<unknown>([1, 'a', { b: 1 }, new Set([null])]),
  'property on a Map': () => Object.assign(new Map([['a', 1]]), { total: 1 }),
  'property on a Set': () => Object.assign(new Set([1]), { total: 1 }),
  Buffer: () => ({ a: Buffer.from('abc') }),
  'empty Buffer': () => Buffer.alloc(0),
  Uint8Array: () => ({ a: new Uint8Array([1, 2, 3]) }),
  'window on a larger Uint8Array': () => new Uint8Array(memory, 3, 5),
  'window on a larger Float64Array': () => ['x', new Float64Array(memory, 8, 2)],
  'other typed arrays': () => [new Int8Array(2), new Uint8ClampedArray(2), new Int16Array([-1]), new Uint32Array([7])],
  'Float32Array with NaN and -0': () => new Float32Array([NaN, -0, 1.5]),
  BigInt64Array: () => [new BigInt64Array([-1n]), new BigUint64Array([2n ** 64n - 1n])],
  DataView: () => new DataView(memory, 4, 4),
  ArrayBuffer: () => memory.slice(0, 5),
  SharedArrayBuffer: () => new SharedArrayBuffer(4),
  'property on a Buffer': () => Object.assign(Buffer.from('abc'), { encoding: 'utf8' }),
  'boxed number': () => [new Number(1)], // eslint-disable-line no-new-wrappers
  'boxed string': () => [new String('a')], // eslint-disable-line no-new-wrappers
  Error: () => new Error('x', { cause: 1 }),
  'TypeError with a code': () => Object.assign(new TypeError('x'), { code: 'E' }),
  RegExp: () => /a\/b/giu,
  'RegExp with lastIndex': () => lastIndex,
  URL: () => new URL('https://example.org/?a=1'),
  Proxy: () => new Proxy({ a: 1 }, {}),
  WeakMap: () => new WeakMap(),
  Promise: () => Promise.resolve(1),
  'generator': () => (function* () { yield 1; })(), // prettier-ignore
  'arguments': () => (function () { return arguments; })(), // prettier-ignore
  cycle: cyclic,
  'shared reference': () => { const a = { x: 1 }; return [a, a]; }, // prettier-ignore
  'nested 400 deep': () => nested(400),
  'nested 100,000 deep': () => nested(100_000),
  'a million numbers': () => Array.from({ length: 1_000_000 }, (_, index) => index),
};
