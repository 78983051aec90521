/**
 * Values to bytes and back, each in the least form that keeps it: JSON where JSON is exact; JSON with a table of
 * the places of its Dates, which is what nearly every row needs; V8's serializer for everything else.
 *
 * **Invariant.** A value comes back identical, or `encode` refuses it. It holds because the walk in encodable.ts
 * accepts only kinds that were tried, and because the form is chosen from what the walk saw.
 *
 * The trade-off: a row with Dates is read alike by every Node and in every realm; a rich value is not. V8's
 * format is read by the same and by newer releases of V8 only: while a Node that raised it runs beside an older
 * one, rich entries of the first are misses to the second. And in a `vm` context, as Jest makes one for each test
 * file, rich objects have the main realm's prototypes.
 *
 * The choice was measured. `cases`: how many of 79 values come back changed without a word; `random`: how many
 * of 5,000 from fast-check. Microseconds and bytes for five workflows, 689 bytes of JSON, holding one Date and
 * holding five:
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
 * Without a Date, this is JSON: 8.5 to encode, of which the walk is 5, and 3.9 to decode. (2-core Debian 12 VM,
 * Node 20.20, 2026-11; `tsx codec/compare.ts` in bench/, a load of up to 2 beside it.)
 *
 * Rejected: msgpackr and cbor-x, half the size, since they change lone surrogates, -0 and `__proto__` keys;
 * devalue as the rich form, since it needs a dependency and base64 for what V8 writes as it is.
 */
import { DefaultDeserializer, serialize } from 'node:v8';

import { classify, type DatePath } from './encodable.js';
import { UnencodableValueError } from '../errors/errors.js';

/** How a payload is written: `j` JSON, `d` JSON with Dates, `v` V8's serializer. Part of the stored form. */
export type CodecTag = 'j' | 'd' | 'v';

export interface Encoded {
  readonly tag: CodecTag;
  readonly bytes: Buffer;
}

/**
 * Turns a value into bytes that `decode` turns back into an identical one. Shared references may come back as
 * equal copies. Throws `UnencodableValueError`, with the path, for anything that would come back changed.
 */
export function encode(value: unknown): Encoded {
  const { rich, dates } = classify(value);
  try {
    if (rich || !jsonIsNative()) return { tag: 'v', bytes: serialize(value) };
    if (dates.length > 0) return { tag: 'd', bytes: Buffer.from(JSON.stringify([dates, value])) };
    return { tag: 'j', bytes: Buffer.from(JSON.stringify(value)) };
  } catch (error) {
    // What the walk can't know: detached memory, or more text than one string can hold.
    throw new UnencodableValueError(
      'value',
      `A cached value must fit what this Node can write at once: writing value failed with ${String(error)}. ` +
        'Store less, in several entries.',
    );
  }
}

/**
 * Turns the bytes of `encode` back into the value. What it returns shares no memory with `bytes`. Throws on an
 * unknown tag and on bytes that `encode` does not write; that no bit has changed is the envelope's to check.
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
      throw new TypeError(`A payload has the tag j, d or v: got ${JSON.stringify(tag)}`);
  }
}

const { toJSON, toISOString } = Date.prototype;

/** Whether JSON.stringify writes containers and Dates as they are: some libraries add a `toJSON` to prototypes. */
function jsonIsNative(): boolean {
  const date = Date.prototype;
  return !('toJSON' in Array.prototype) && date.toJSON === toJSON && date.toISOString === toISOString;
}

/** `[[path of a Date, ...], value with each Date as ISO text]`: a Date needs one look at its place, not a walk. */
function decodeDates(text: string): unknown {
  const document = JSON.parse(text) as [readonly DatePath[], unknown];
  if (!Array.isArray(document) || document.length !== 2) throw new TypeError('A payload of dates is a pair');
  for (const path of document[0]) {
    let holder: Record<string | number, unknown> = document as never;
    let key: string | number = 1;
    for (const step of path) {
      holder = holder[key] as typeof holder;
      key = step;
    }
    // No prototype holds the text of a date, so a made-up path changes nothing outside this value.
    const iso = holder[key];
    const date = new Date(typeof iso === 'string' ? iso : NaN);
    if (Number.isNaN(date.getTime())) throw new TypeError(`No date at ${JSON.stringify(path)}`);
    holder[key] = date;
  }
  return document[1];
}

/** What Node documents for subclasses and its types leave out. */
interface ReadsViews {
  _readHostObject(): ArrayBufferView;
}
const Deserializer = DefaultDeserializer as unknown as new (bytes: Buffer) => DefaultDeserializer & ReadsViews;

/** Node's deserializer, but its views are copies: they would be windows on the bytes, which a client reuses. */
class CopyingDeserializer extends Deserializer {
  override _readHostObject(): ArrayBufferView {
    const view = super._readHostObject();
    if (Buffer.isBuffer(view)) return Buffer.from(view);
    if (!(view instanceof DataView)) return (view as Uint8Array).slice();
    return new DataView(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  }
}

function decodeRich(bytes: Buffer): unknown {
  const deserializer = new CopyingDeserializer(bytes);
  deserializer.readHeader();
  const value: unknown = deserializer.readValue();
  // Where an empty read starts is the only thing that tells where the value ended.
  const end = deserializer.readRawBytes(0).byteOffset - bytes.byteOffset;
  if (end !== bytes.length) throw new TypeError(`A payload is one value: ${bytes.length - end} bytes follow it`);
  return value;
}
