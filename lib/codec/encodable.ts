/**
 * Decides which values can be cached: data that comes back from the store identical. The walk refuses every other value
 * before a byte is written, and names its path, since a value must not change silently when it is cached.
 *
 * Accepted: null, undefined, booleans, all numbers, bigints, all strings (lone surrogates too), plain objects,
 * arrays, Date, Map, Set, Buffer, the typed arrays, DataView, ArrayBuffer. Objects of another realm come back as those of
 * this one (realm.ts).
 *
 * **Invariant.** A value that the walk accepted runs no user code when it is read again (no accessor, no proxy,
 * no `toJSON` function), so the encoder sees the value that the walk saw.
 *
 * These are not part of a value: its frozen state; the identity of an object at two paths (equal copies may come back);
 * the part of an ArrayBuffer outside a view on it. An object whose prototype was replaced by `Object.prototype` counts
 * as a plain object.
 */
import { inspect, types } from 'node:util';

import { UnencodableValueError } from '../errors/errors.js';
import { builtInName, NativeDate, VIEW_TYPES } from './realm.js';

/** Longest chain of objects inside objects, the value included; far below the stack limits of this walk, of JSON and of V8's serializer. */
export const MAX_DEPTH = 500;

/** Most objects visited in one value: a limit on shared references, which multiply visits (30 nested pairs cost 2^30). */
export const MAX_OBJECTS = 10_000_000;

/** Keys and indices from the value down to a Date; empty when the value is itself a Date. */
export type DatePath = readonly (string | number)[];

/** The form that a value needs in order to come back identical: `rich` if it holds more than JSON and valid Dates. */
export interface Classification {
  readonly rich: boolean;
  /** Complete unless `rich`. */
  readonly dates: readonly DatePath[];
}

/**
 * Walks a value once. Throws `UnencodableValueError` at the first part that would not come back identical.
 * Costs about as much as `JSON.stringify`; most of the cost is the search of each object for symbols, accessors and
 * non-enumerable properties.
 */
export function classify(value: unknown): Classification {
  const walk = new Walk();
  walk.visit(value, 0);
  return walk;
}

type Step = string | number | { readonly in: (holder: string) => string };

const VIEW_PROTOTYPES = new Set<unknown>([Buffer, ...VIEW_TYPES].map((view) => view.prototype));
const VIEW_NAMES = new Set(VIEW_TYPES.map((view) => view.name));

/** Remedies for instances that a driver makes, by the name of their class. */
const REMEDIES: Readonly<Record<string, string>> = {
  PostgresInterval: 'Map the row in `value`, the interval by `toPostgres()`, or select the column as text.',
};

class Walk implements Classification {
  rich = false;
  readonly dates: DatePath[] = [];
  // Indexed by depth and overwritten in place, since a push and a pop per node cost more than the visit of the node.
  readonly #steps: Step[] = [];
  readonly #holders: object[] = [];
  #objects = 0;

  visit(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return;
      case 'number':
        if (!Number.isFinite(value) || Object.is(value, -0)) this.rich = true;
        return;
      case 'undefined':
      case 'bigint':
        this.rich = true;
        return;
      case 'object':
        if (value !== null) this.#visitObject(value, depth);
        return;
      case 'function':
        return this.#refuse(depth, 'a function', 'Leave it out, or store the data it is made from.');
      case 'symbol':
        return this.#refuse(depth, `the symbol ${String(value)}`, 'Store a string in its place.');
    }
  }

  #visitObject(value: object, depth: number): void {
    if (types.isProxy(value)) this.#refuse(depth, 'a Proxy', 'Store a plain copy of its target.');
    if (depth === MAX_DEPTH) this.#refuseDepth(value, depth);
    if (++this.#objects > MAX_OBJECTS) {
      const limit = MAX_OBJECTS.toLocaleString('en');
      this.#refuse(
        depth,
        `object number ${limit} and one`,
        `The limit is ${limit}. Split the value into several entries.`,
      );
    }
    this.#holders[depth] = value;
    const prototype = Object.getPrototypeOf(value) as object | null;
    if (prototype === Object.prototype) return this.#visitProperties(value, depth);
    if (prototype === Array.prototype && Array.isArray(value)) return this.#visitElements(value, depth);
    // Fake timers replace the global Date by a subclass that adds properties; for their user it is Date.
    if (types.isDate(value) && (prototype === NativeDate.prototype || prototype === Date.prototype)) {
      if (prototype === NativeDate.prototype) this.#refuseExtras(value, 0, depth);
      if (Number.isNaN(value.getTime())) this.rich = true;
      if (!this.rich) this.dates.push(this.#steps.slice(0, depth) as DatePath[number][]);
      return;
    }
    this.rich = true;
    if (types.isMap(value) && prototype === Map.prototype) return this.#visitMap(value, depth);
    if (types.isSet(value) && prototype === Set.prototype) return this.#visitSet(value, depth);
    if (ArrayBuffer.isView(value) && VIEW_PROTOTYPES.has(prototype)) return this.#visitView(value, depth);
    if (types.isArrayBuffer(value) && prototype === ArrayBuffer.prototype) return this.#visitArrayBuffer(value, depth);
    if (prototype === null || !this.#visitForeign(value, builtInName(prototype), depth)) {
      this.#refuseInstance(prototype, depth);
    }
  }

  /**
   * Visits an object whose prototype is that of a built-in class of another realm. False where it is none that can be
   * cached. Always rich: a `toJSON` over there is out of sight.
   */
  #visitForeign(value: object, name: string, depth: number): boolean {
    if (name === 'Object') this.#visitProperties(value, depth);
    else if (name === 'Array' && Array.isArray(value)) this.#visitElements(value, depth);
    else if (name === 'Date' && types.isDate(value)) this.#refuseExtras(value, 0, depth);
    else if (name === 'Map' && types.isMap(value)) this.#visitMap(value, depth);
    else if (name === 'Set' && types.isSet(value)) this.#visitSet(value, depth);
    else if (VIEW_NAMES.has(name) && ArrayBuffer.isView(value)) this.#visitView(value, depth);
    else if (name === 'ArrayBuffer' && types.isArrayBuffer(value)) this.#visitArrayBuffer(value, depth);
    else return false;
    return true;
  }

  #visitProperties(value: object, depth: number): void {
    const symbols = Object.getOwnPropertySymbols(value);
    if (symbols.length > 0) {
      this.#refuse(
        depth,
        `an object with the key ${String(symbols[0])}`,
        'Use a string key, or leave the property out.',
      );
    }
    for (const key of Object.getOwnPropertyNames(value)) this.#visitProperty(value, key, depth);
  }

  #visitElements(value: readonly unknown[], depth: number): void {
    this.#refuseExtras(value, value.length + 1, depth);
    for (let index = 0; index < value.length; index++) this.#visitProperty(value, index, depth);
  }

  #visitProperty(holder: object, key: string | number, depth: number): void {
    this.#steps[depth] = key;
    const property = Object.getOwnPropertyDescriptor(holder, key);
    if (property === undefined) this.#refuse(depth + 1, 'a hole in an array', 'Fill it with null or undefined.');
    if (property.get !== undefined || property.set !== undefined) {
      this.#refuse(depth + 1, 'an accessor', 'Store what it returns: { ...object } or [...array] reads it.');
    }
    if (!property.enumerable) this.#refuse(depth + 1, 'not enumerable', 'Leave it out, or make it enumerable.');
    this.visit(property.value, depth + 1);
  }

  #visitMap(value: ReadonlyMap<unknown, unknown>, depth: number): void {
    this.#refuseExtras(value, 0, depth);
    let index = 0;
    for (const [key, item] of value) {
      const at = index++;
      this.#steps[depth] = { in: (holder) => `[...${holder}.keys()][${at}]` };
      this.visit(key, depth + 1);
      this.#steps[depth] = {
        in: (holder) =>
          typeof key === 'object' && key !== null
            ? `[...${holder}.values()][${at}]`
            : `${holder}.get(${writeKey(key)})`,
      };
      this.visit(item, depth + 1);
    }
  }

  #visitSet(value: ReadonlySet<unknown>, depth: number): void {
    this.#refuseExtras(value, 0, depth);
    let index = 0;
    for (const item of value) {
      const at = index++;
      this.#steps[depth] = { in: (holder) => `[...${holder}][${at}]` };
      this.visit(item, depth + 1);
    }
  }

  #visitView(value: ArrayBufferView, depth: number): void {
    this.#refuseExtras(value, types.isDataView(value) ? 0 : (value as Uint8Array).length, depth);
    this.#refuseUnsteady(value.buffer, depth);
  }

  #visitArrayBuffer(value: ArrayBuffer, depth: number): void {
    this.#refuseExtras(value, 0, depth);
    this.#refuseUnsteady(value, depth);
  }

  #refuseUnsteady(memory: ArrayBufferLike & { readonly resizable?: boolean }, depth: number): void {
    if (types.isArrayBuffer(memory) && memory.resizable !== true) return;
    this.#refuse(
      depth,
      'memory that is shared or resizable',
      'Store a copy: Buffer.from(bytes), or typedArray.slice().',
    );
  }

  #refuseExtras(value: object, ownKeys: number, depth: number): void {
    if (ownKeys > FEW_KEYS && inspect(value, BARE) === inspectBare(value)) return;
    const keys = Reflect.ownKeys(value);
    if (keys.length <= ownKeys) return;
    const kind = (Object.getPrototypeOf(value) as { constructor: { name: string } }).constructor.name;
    // Indices come first and `length` next, so the last key is an extra key.
    this.#refuse(depth, `of type ${kind} and has the property ${String(keys.at(-1))}`, `Store the property beside it.`);
  }

  #refuseInstance(prototype: object | null, depth: number): never {
    if (prototype === null) {
      this.#refuse(depth, 'an object without a prototype', 'Copy it into a plain object: { ...object }.');
    }
    const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
    const name = typeof type === 'function' && type.name !== '' ? type.name : 'an unnamed class';
    const own: unknown = (globalThis as Record<string, unknown>)[name];
    const realm = typeof own === 'function' && own !== type ? ' of another realm' : '';
    this.#refuse(
      depth,
      `an instance of ${name}${realm}`,
      REMEDIES[name] ?? 'Store its plain data, and build the instance after the read.',
    );
  }

  #refuseDepth(value: object, depth: number): never {
    const seen = new Map<object, number>();
    for (const [at, holder] of [...this.#holders.slice(0, depth), value].entries()) {
      const before = seen.get(holder);
      if (before !== undefined) {
        this.#refuse(
          at,
          `the object at ${this.#path(before)} again, a cycle`,
          'Store an id in place of the reference.',
        );
      }
      seen.set(holder, at);
    }
    this.#refuse(depth, `nested more than ${MAX_DEPTH} levels deep`, 'Flatten the value, or store its parts by id.');
  }

  #refuse(depth: number, what: string, remedy: string): never {
    const path = this.#path(depth);
    const rule = 'A cached value must come back from the store exactly as it was';
    throw new UnencodableValueError(path, `${rule}, but ${path} is ${what}. ${remedy}`);
  }

  #path(depth: number): string {
    let path = 'value';
    for (let at = 0; at < depth; at++) {
      if (depth > 16 && at === 8) {
        path += `…(${depth - 12} more)…`;
        at = depth - 4;
      }
      const step = this.#steps[at]!;
      if (typeof step === 'object') path = step.in(path);
      else if (typeof step === 'number') path += `[${step}]`;
      else path += /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    }
    return path;
  }
}

// A list of the keys of an array or a view has a string for each index: 0.6 s for a million (2-core Debian 12 VM,
// Node 20.20, 2026-11). `inspect` shows own properties without a list of indices, in 1.2 us at any length. Its output may
// change with Node, so a match only skips the search for extra properties, and a difference starts it.
const FEW_KEYS = 32;
const BARE = { showHidden: true, customInspect: false, maxArrayLength: 0, depth: 0, breakLength: Infinity } as const;
const [BEFORE_LENGTH, ...AFTER_LENGTH] = inspect(Array.from({ length: 9_876 }), BARE).split('9876');

/** The output of `inspect` for the same array or view without properties of its own. */
function inspectBare(value: object): string {
  if (Array.isArray(value)) return [BEFORE_LENGTH, ...AFTER_LENGTH].join(String(value.length));
  const { buffer, byteOffset, length } = value as Uint8Array;
  if (Buffer.isBuffer(value)) return inspect(Buffer.from(buffer, byteOffset, length), BARE);
  const { constructor } = Object.getPrototypeOf(value) as { constructor: Uint8ArrayConstructor };
  return inspect(new constructor(buffer, byteOffset, length), BARE);
}

function writeKey(key: unknown): string {
  if (typeof key === 'string') return JSON.stringify(key);
  return typeof key === 'bigint' ? `${key}n` : String(key);
}
