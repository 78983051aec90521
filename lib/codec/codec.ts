/**
 * Encodes values to bytes and back, each in the smallest form that keeps it: JSON where JSON is exact; JSON with a table
 * of the paths of its Dates, the form of nearly every row; V8's serializer for all other values.
 *
 * **Invariant.** A value comes back identical, or `encode` refuses it. It holds because the walk in encodable.ts
 * accepts only types with a tested round trip, and because the walk's result selects the form.
 *
 * The trade-off: every Node reads a row with Dates alike; a rich value has a limit. Only the same and newer releases of
 * V8 read V8's format: while a Node with a newer format runs beside an older one, rich entries of the first are misses to
 * the second.
 *
 * A measurement decided. `cases`: number of 79 values that come back changed without an error; `random`: the same of
 * 5,000 values from fast-check. Microseconds and bytes for five workflows, 689 bytes of JSON, with one Date and with
 * five:
 *
 *     codec                     cases  random   enc   dec  bytes    enc   dec  bytes
 *     JSON                         56    3061   5.0   3.6    689    8.5   4.0    845
 *     node:v8                      21     617   4.6   7.3    604    4.3   8.2    684
 *     devalue 6.0                  18       0  10.1   6.5    726   14.2   8.7    930
 *     superjson 2.2                39    1423  32.4   5.3    747   40.0   8.8    995
 *     msgpackr 2.1                 40    1424   5.4   6.6    318    6.2   6.8    314
 *     cbor-x 1.6                   40    1426   5.6   6.3    351    5.9   6.3    346
 *     seroval 1.8                  22       0  21.5  17.5   1645   27.2  20.7   1877
 *     walk, JSON or v8              0       0  11.1   7.8    605   12.0   8.8    685
 *     walk, JSON or devalue         0       0  16.3   7.0    727   21.9   8.4    931
 *     walk, JSON or msgpackr        4       1  10.6   6.3    319   12.1   6.9    315
 *     this                          0       0  10.5   6.3    710   15.8   6.9    930
 *
 * A value without a Date takes 8.5 to encode, of which the walk takes 5, and 3.9 to decode. (2-core Debian 12 VM,
 * Node 20.20, 2026-11; `tsx codec/compare.ts` in bench/, a load of up to 2 beside it.)
 *
 * Rejected: msgpackr and cbor-x, of half the size, since they change lone surrogates, -0 and `__proto__` keys;
 * devalue as the rich form, since it needs a dependency, and base64 for bytes that V8 writes as they are.
 */
import { types } from 'node:util';
import { DefaultDeserializer, serialize } from 'node:v8';

import { classify, type DatePath } from './encodable.js';
import { bringHome, DESERIALIZES_ABROAD } from './realm.js';
import { UnencodableValueError } from '../errors/errors.js';

/** Form of a payload: `j` JSON, `d` JSON with Dates, `v` V8's serializer. The stored form holds the tag. */
export type CodecTag = 'j' | 'd' | 'v';

export interface Encoded {
  readonly tag: CodecTag;
  readonly bytes: Buffer;
}

/**
 * Encodes a value to bytes that `decode` turns back into an identical value. Shared references may come back as
 * equal copies. Throws `UnencodableValueError`, with the path, for a value that would come back changed.
 */
export function encode(value: unknown): Encoded {
  const { rich, dates } = classify(value);
  try {
    if (rich || !jsonIsNative()) return { tag: 'v', bytes: serialize(value) };
    if (dates.length > 0) return { tag: 'd', bytes: Buffer.from(JSON.stringify([dates, value])) };
    return { tag: 'j', bytes: Buffer.from(JSON.stringify(value)) };
  } catch (error) {
    // The walk can't see detached memory, nor text that is too long for one string.
    throw new UnencodableValueError(
      'value',
      `A cached value must be small enough to serialize at once, but got ${String(error)}. ` +
        'Store less, in several entries.',
    );
  }
}

/**
 * Decodes the bytes of `encode`. The value shares no memory with `bytes`. Throws on an unknown tag and on bytes that
 * `encode` does not write; the envelope's checksum finds changed bits.
 */
export function decode(tag: string, bytes: Buffer): unknown {
  switch (tag) {
    case 'j':
      return JSON.parse(bytes.toString());
    case 'd':
      return decodeDates(bytes.toString());
    case 'v':
      return decodeRich(bytes);
    default:
      throw new TypeError(`The tag of a payload must be j, d or v, but got ${JSON.stringify(tag)}`);
  }
}

const { toJSON, toISOString } = Date.prototype;

/** Whether JSON.stringify writes containers and Dates natively: some libraries add a `toJSON` to prototypes. */
function jsonIsNative(): boolean {
  const date = Date.prototype;
  return !('toJSON' in Array.prototype) && date.toJSON === toJSON && date.toISOString === toISOString;
}

/** Decodes `[[path of a Date, ...], value with each Date as ISO text]`: each Date costs one access by its path, not a walk. */
function decodeDates(text: string): unknown {
  const document = JSON.parse(text) as [readonly DatePath[], unknown];
  if (!Array.isArray(document) || document.length !== 2) throw new TypeError('A payload of dates must be a pair');
  for (const path of document[0]) {
    let holder: Record<string | number, unknown> = document as never;
    let key: string | number = 1;
    for (const step of path) {
      holder = holder[key] as typeof holder;
      key = step;
    }
    // No prototype holds the text of a date, so a forged path never writes outside this value.
    const iso = holder[key];
    const date = new Date(typeof iso === 'string' ? iso : NaN);
    if (Number.isNaN(date.getTime()))
      throw new TypeError(`A payload of dates must have a date at ${JSON.stringify(path)}`);
    holder[key] = date;
  }
  return document[1];
}

/** A method that Node documents for subclasses, and that its types omit. */
interface ReadsViews {
  _readHostObject(): ArrayBufferView;
}
const Deserializer = DefaultDeserializer as unknown as new (bytes: Buffer) => DefaultDeserializer & ReadsViews;

/** Node's deserializer, with copied views: the original's views share the memory of the bytes, which a client reuses. */
class CopyingDeserializer extends Deserializer {
  override _readHostObject(): ArrayBufferView {
    const view = super._readHostObject();
    if (Buffer.isBuffer(view)) return Buffer.from(view);
    if (!types.isDataView(view)) return (view as Uint8Array).slice();
    return new DataView(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  }
}

function decodeRich(bytes: Buffer): unknown {
  const deserializer = new CopyingDeserializer(bytes);
  deserializer.readHeader();
  const value: unknown = deserializer.readValue();
  // Only the offset of an empty read shows the end of the value.
  const end = deserializer.readRawBytes(0).byteOffset - bytes.byteOffset;
  if (end !== bytes.length) {
    throw new TypeError(`A payload must be one value, but ${bytes.length - end} bytes follow it`);
  }
  return DESERIALIZES_ABROAD ? bringHome(value) : value;
}
