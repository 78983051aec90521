/**
 * Objects of other realms. Jest, and Vitest on `vmThreads`, run each test file in a `vm` context, the library with it;
 * such a context has a Map, a Date and an Object.prototype of its own. Node's modules stay outside, so what they make,
 * V8's deserializer first of all, has the prototypes of the main realm: not one `instanceof` of the test holds.
 *
 * A value of any realm can be cached, and comes back with the prototypes of the realm that the library runs in.
 */
import { types } from 'node:util';
import { deserialize, serialize } from 'node:v8';

/** Whether V8's deserializer makes objects of another realm than this one. */
export const DESERIALIZES_ABROAD = !(deserialize(serialize(new Map())) instanceof Map);

/** This realm's own Date. Fake timers replace the global one by a subclass, at times before the library is loaded. */
export const NativeDate: DateConstructor = nativeOf(Date);

function nativeOf(type: DateConstructor): DateConstructor {
  const parent = Object.getPrototypeOf(type) as DateConstructor;
  return 'now' in parent ? nativeOf(parent) : type;
}

const sourceOf = (callable: unknown): string => Function.prototype.toString.call(callable);

const names = new WeakMap<object, string>();

/**
 * The name of the built-in class whose prototype this is, in whatever realm; '' for every other object. What a program
 * defines has its source as text, never `[native code]` under the name of a built-in class.
 */
export function builtInName(prototype: object): string {
  let name = names.get(prototype);
  if (name === undefined) names.set(prototype, (name = readName(prototype)));
  return name;
}

function readName(prototype: object): string {
  const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof type !== 'function' || types.isProxy(type) || type.prototype !== prototype) return '';
  return sourceOf(type) === `function ${type.name}() { [native code] }` ? type.name : '';
}

/** The views on an ArrayBuffer that can be cached. Not Float16Array: V8's serializer knows it, Node's does not in every supported release. */
export const VIEW_TYPES = [
  Uint8Array,
  Int8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
] as const;

type Prototypes = Record<string, { readonly prototype: object } | undefined>;

const own = Object.fromEntries(
  [Object, Array, NativeDate, Map, Set, ArrayBuffer, ...VIEW_TYPES].map((type) => [type.name, type]),
) as Prototypes;

/**
 * Gives a value that was just deserialized the prototypes of this realm, in place: what makes a Map a Map is in the
 * object, of whatever realm, and only its methods are looked up in a prototype.
 */
export function bringHome<T>(value: T): T {
  visit(value);
  return value;
}

function visit(value: unknown): void {
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return;
  const foreign = Object.getPrototypeOf(value) as object;
  const prototype = own[builtInName(foreign)]?.prototype;
  // An object that several places hold has been visited.
  if (prototype === undefined || prototype === foreign) return;
  Object.setPrototypeOf(value, prototype);
  if (types.isMap(value)) {
    for (const [key, item] of value) {
      visit(key);
      visit(item);
    }
  } else if (types.isSet(value)) for (const item of value) visit(item);
  else if (ArrayBuffer.isView(value)) visit(value.buffer);
  else for (const item of Object.values(value)) visit(item);
}
