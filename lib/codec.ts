import { DefaultDeserializer, serialize } from 'node:v8';

import { survey, type DatePath } from './encodable.js';
import { UnencodableValueError } from './errors.js';

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
  const { rich, dates } = survey(value);
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
