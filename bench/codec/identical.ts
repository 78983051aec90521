/**
 * Stricter than deepStrictEqual, which does not look at accessors, non-enumerable properties and proxies.
 */
import { isDeepStrictEqual, types } from 'node:util';

export function identical(a: unknown, b: unknown): boolean {
  try {
    // Node 20 does not find an invalid Date equal to itself.
    if (types.isDate(a) && types.isDate(b) && Number.isNaN(a.getTime()) && Number.isNaN(b.getTime())) {
      return sameShape(a, b, new Set());
    }
    return isDeepStrictEqual(a, b) && sameShape(a, b, new Set());
  } catch {
    // Deeper than the stack of the comparison: the cases that are so deep are not meant to come back.
    return false;
  }
}

function sameShape(a: unknown, b: unknown, seen: Set<unknown>): boolean {
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return Object.is(a, b);
  if (seen.has(a)) return true;
  seen.add(a);
  if (types.isProxy(a) || types.isProxy(b)) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (ArrayBuffer.isView(a)) return true;
  const keys = Reflect.ownKeys(a);
  if (keys.length !== Reflect.ownKeys(b).length) return false;
  if (!keys.every((key) => sameProperty(a, b, key, seen))) return false;
  if (a instanceof Map && b instanceof Map) return sameShape([...a].flat(1), [...b].flat(1), seen);
  if (a instanceof Set && b instanceof Set) return sameShape([...a], [...b], seen);
  return true;
}

function sameProperty(a: object, b: object, key: PropertyKey, seen: Set<unknown>): boolean {
  const left = Object.getOwnPropertyDescriptor(a, key);
  const right = Object.getOwnPropertyDescriptor(b, key);
  if (left === undefined || right === undefined) return left === right;
  if ('get' in left || 'get' in right || left.enumerable !== right.enumerable) return false;
  return sameShape(left.value, right.value, seen);
}
