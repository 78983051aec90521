/**
 * The stored form of one entry: 8 bytes, then the payload.
 *
 *     offset  bytes
 *     0       2      'gc'
 *     2       1      format, 1. Raise it with any change to this layout or to a payload's
 *     3       1      tag: 'a' absent, without a payload, or the codec's
 *     4       4      CRC-32, big-endian, of key, tag and payload in this order
 *     8              payload, as the codec wrote it
 *
 * **Invariant.** `open` gives back what `seal` was given for the same key, or a reason; it never throws.
 *
 * The checksum starts with the key, so a value copied to or answered for another key does not pass for this
 * one. It finds every change of up to 32 bits in a row and misses one in 2^32 of the others; it protects from
 * accidents, not from somebody who can write to the store. Formats before this one are a miss, never converted:
 * an entry can always be loaded again.
 */
import { crc32 } from 'node:zlib';

import { decode, encode } from './codec.js';

/** A cached "there is no such row". Not null, not an empty list, not a miss. */
export const ABSENT: unique symbol = Symbol('gencache.absent');

/** Why an entry's bytes are not this key's value; each is a miss, counted by reason and logged. */
export type UnreadableReason =
  /** Too short to be an entry. */
  | 'truncated'
  /** Not written by this library. */
  | 'foreign'
  /** Written by a release with another format. */
  | 'format'
  /** Changed since it was written, cut, or written for another key. */
  | 'checksum'
  /** Intact, yet not readable here: for instance V8's format of a newer Node. */
  | 'payload';

export type Opened =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly reason: UnreadableReason; readonly message: string };

const MAGIC = 0x67_63;
const FORMAT = 1;
const HEADER_BYTES = 8;
const ABSENT_TAG = 'a';

/** The bytes to store under `key` for a value, or for `ABSENT`. Throws `UnencodableValueError`. */
export function seal(key: string, value: unknown): Buffer {
  const { tag, bytes: payload } = value === ABSENT ? { tag: ABSENT_TAG, bytes: NOTHING } : encode(value);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  bytes.writeUInt16BE(MAGIC, 0);
  bytes[2] = FORMAT;
  bytes[3] = tag.charCodeAt(0);
  bytes.writeUInt32BE(crc32(payload, crc32(key + tag)), 4);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/**
 * The checksum of a key and a tag. It remembers the tag asked last, since hits of one key ask for the same one again and
 * again: that saves a third of what opening costs beside decoding.
 */
export class KeyChecksum {
  readonly #key: string;
  #tag = '';
  #checksum = 0;

  constructor(key: string) {
    this.#key = key;
  }

  of(tag: string): number {
    if (tag !== this.#tag) {
      this.#checksum = crc32(this.#key + tag);
      this.#tag = tag;
    }
    return this.#checksum;
  }
}

/**
 * The value that was sealed for `key`, or `ABSENT`, or why not. Never throws; shares no memory with `bytes`.
 * `checksum`: of this key, where a caller opens it again and again.
 */
export function open(key: string, bytes: Buffer, checksum?: KeyChecksum): Opened {
  if (bytes.length < HEADER_BYTES) {
    return refuse('truncated', `An entry has at least ${HEADER_BYTES} bytes: ${key} has ${bytes.length}.`, WRITERS);
  }
  if (bytes.readUInt16BE(0) !== MAGIC) {
    return refuse('foreign', `An entry starts with 6763: ${key} starts with ${bytes.toString('hex', 0, 4)}.`, WRITERS);
  }
  if (bytes[2] !== FORMAT) {
    return refuse(
      'format',
      `This release reads format ${FORMAT}: ${key} has format ${bytes[2]}.`,
      'Expected while two releases run side by side; it ends with the last entry of the other one.',
    );
  }
  const tag = String.fromCharCode(bytes[3]!);
  const payload = bytes.subarray(HEADER_BYTES);
  const stored = bytes.readUInt32BE(4);
  const computed = crc32(payload, checksum === undefined ? crc32(key + tag) : checksum.of(tag));
  if (stored !== computed) {
    const arrived = `${key} has ${hex(stored)}, and its key and bytes make ${hex(computed)}`;
    return refuse('checksum', `An entry's checksum covers its key and its bytes: ${arrived}.`, WRITERS);
  }
  try {
    if (tag !== ABSENT_TAG) return { ok: true, value: decode(tag, payload) };
    if (payload.length === 0) return { ok: true, value: ABSENT };
    throw new TypeError(`An absent entry has no payload: got ${payload.length} bytes`);
  } catch (error) {
    return refuse(
      'payload',
      `An intact entry's payload can be read: ${key}, with tag ${JSON.stringify(tag)}, failed with ${String(error)}.`,
      'Expected while a newer Node or release runs beside this one; otherwise please report it.',
    );
  }
}

const NOTHING = Buffer.alloc(0);
const WRITERS = 'It is loaded again; if this recurs, find out what else writes to or alters this key.';

function hex(checksum: number): string {
  return checksum.toString(16).padStart(8, '0');
}

function refuse(reason: UnreadableReason, found: string, remedy: string): Opened {
  return { ok: false, reason, message: `${found} ${remedy}` };
}
