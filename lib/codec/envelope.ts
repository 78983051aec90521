/**
 * The stored form of one entry: 8 bytes, then the payload.
 *
 *     offset  bytes
 *     0       2      'gc'
 *     2       1      format, 1, or 2 with a life; every change of these layouts or of a payload's raises it
 *     3       1      tag: 'a' absent or 'u' unstorable, without a payload, or the codec's
 *     4       4      CRC-32, big-endian, of key, tag, and all bytes from 8 on in this order; '+' follows the tag in format 2
 *     8       8      format 2: the instant until which the value is fresh, in ms by the store's clock, a float64
 *     16      4      format 2: the duration of its load, in ms
 *     8 or 20        payload of the codec
 *
 * **Invariant.** `open` returns the value that `seal` got for the same key, or a reason; it never throws.
 *
 * The checksum starts with the key, so `open` refuses a value that was copied to, or answered for, another key. It
 * finds every change of up to 32 bits in a row and misses one in 2^32 of the other changes; it protects from accidents,
 * not from an attacker with write access to the store. An entry of an earlier format is a miss, never converted: the
 * next read loads it again.
 */
import { crc32 } from 'node:zlib';

import { decode, encode } from './codec.js';

/** The cached fact that there is no such row: neither null nor an empty list nor a miss. */
export const ABSENT: unique symbol = Symbol('gencache.absent');

/** The cached fact that the value can't be stored: it is too large, or would not come back identical. */
export const UNSTORABLE: unique symbol = Symbol('gencache.unstorable');

/** Reason why an entry's bytes are not this key's value; each is a miss, counted by reason and logged. */
export type UnreadableReason =
  /** Too short to be an entry. */
  | 'truncated'
  /** Written by another program. */
  | 'foreign'
  /** Written by a release with another format. */
  | 'format'
  /** Changed or cut since it was written, or written for another key. */
  | 'checksum'
  /** Intact, but not readable here: for instance V8's format of a newer Node. */
  | 'payload';

/** What an entry says of its age, which is stored longer than it is fresh, or refreshed earlier than it expires. */
export interface Life {
  /** The instant until which the value is fresh, in ms by the store's clock. */
  readonly freshUntilMs: number;
  /** The duration of its load, in ms. */
  readonly loadMs: number;
}

export type Opened =
  | { readonly ok: true; readonly value: unknown; readonly life: Life | undefined }
  | { readonly ok: false; readonly reason: UnreadableReason; readonly message: string };

const MAGIC = 0x67_63;
const FORMAT = 1;
const FORMAT_WITH_LIFE = 2;
const HEADER_BYTES = 8;
const LIFE_BYTES = 12;
const ABSENT_TAG = 'a';
const RICH_TAG = 'v'.charCodeAt(0);
const UNSTORABLE_TAG = 'u';

/** Returns the bytes to store under `key` for a value, `ABSENT` or `UNSTORABLE`. Throws `UnencodableValueError`. */
export function seal(key: string, value: unknown, life?: Life): Buffer {
  const { tag, bytes: payload } = value === ABSENT ? AN_ABSENCE : value === UNSTORABLE ? A_MARKER : encode(value);
  const headerBytes = life === undefined ? HEADER_BYTES : HEADER_BYTES + LIFE_BYTES;
  const bytes = Buffer.allocUnsafe(headerBytes + payload.length);
  bytes.writeUInt16BE(MAGIC, 0);
  bytes[2] = life === undefined ? FORMAT : FORMAT_WITH_LIFE;
  bytes[3] = tag.charCodeAt(0);
  if (life !== undefined) {
    bytes.writeDoubleBE(life.freshUntilMs, HEADER_BYTES);
    bytes.writeUInt32BE(Math.min(Math.round(life.loadMs), 0xff_ff_ff_ff), HEADER_BYTES + 8);
  }
  bytes.set(payload, headerBytes);
  const checked = life === undefined ? payload : bytes.subarray(HEADER_BYTES);
  bytes.writeUInt32BE(crc32(checked, crc32(key + (life === undefined ? tag : `${tag}+`))), 4);
  return bytes;
}

/** The first bytes of a stored value, which differ from those of every other value but for one in 2^32. */
export function head(bytes: Buffer): Buffer {
  return bytes.subarray(0, HEADER_BYTES);
}

/** Whether a stored value is in V8's form: of anything but JSON and Dates. */
export function isRich(bytes: Buffer): boolean {
  return bytes[3] === RICH_TAG;
}

/**
 * The checksum of a key and a tag. It remembers its last tag, since hits of one key repeat the same tag: that saves a
 * third of the cost of `open` beside decoding.
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
 * Returns the value that was sealed for `key`, or `ABSENT` or `UNSTORABLE`, or the reason why the bytes are unusable. Never throws; the
 * value shares no memory with `bytes`. `checksum`: that of this key, from a caller that opens the key repeatedly.
 */
export function open(key: string, bytes: Buffer, checksum?: KeyChecksum): Opened {
  if (bytes.length < HEADER_BYTES) {
    return refuse(
      'truncated',
      `The entry at ${key} must have at least ${HEADER_BYTES} bytes, but has ${bytes.length}.`,
      WRITERS,
    );
  }
  if (bytes.readUInt16BE(0) !== MAGIC) {
    return refuse(
      'foreign',
      `The entry at ${key} must start with 6763, but starts with ${bytes.toString('hex', 0, 4)}.`,
      WRITERS,
    );
  }
  const format = bytes[2];
  if (format !== FORMAT && (format !== FORMAT_WITH_LIFE || bytes.length < HEADER_BYTES + LIFE_BYTES)) {
    return refuse(
      'format',
      `The entry at ${key} must have format ${FORMAT} or ${FORMAT_WITH_LIFE}, but has format ${format}, in ${bytes.length} bytes.`,
      'This is expected while two releases run side by side, and ends with the last entry of the other release.',
    );
  }
  const tag = String.fromCharCode(bytes[3]!);
  const checked = bytes.subarray(HEADER_BYTES);
  const stored = bytes.readUInt32BE(4);
  const hasLife = format === FORMAT_WITH_LIFE;
  const seed = hasLife ? `${tag}+` : tag;
  const computed = crc32(checked, checksum === undefined ? crc32(key + seed) : checksum.of(seed));
  if (stored !== computed) {
    return refuse(
      'checksum',
      `The checksum of the entry at ${key} must be ${hex(computed)}, the CRC-32 of its key and bytes, but is ${hex(stored)}.`,
      WRITERS,
    );
  }
  const payload = hasLife ? checked.subarray(LIFE_BYTES) : checked;
  const life = hasLife ? { freshUntilMs: checked.readDoubleBE(0), loadMs: checked.readUInt32BE(8) } : undefined;
  try {
    const symbol = tag === ABSENT_TAG ? ABSENT : tag === UNSTORABLE_TAG ? UNSTORABLE : undefined;
    if (symbol === undefined) return { ok: true, value: decode(tag, payload), life };
    if (payload.length === 0) return { ok: true, value: symbol, life };
    const kind = symbol === ABSENT ? 'absent' : 'unstorable';
    throw new TypeError(`An ${kind} entry must have no payload, but got ${payload.length} bytes`);
  } catch (error) {
    return refuse(
      'payload',
      `The payload of the intact entry at ${key} (tag ${JSON.stringify(tag)}) must be readable, but got ${String(error)}.`,
      'This is expected while a newer Node or release runs beside this one; otherwise please report it.',
    );
  }
}

const NOTHING = Buffer.alloc(0);
const AN_ABSENCE = { tag: ABSENT_TAG, bytes: NOTHING };
const A_MARKER = { tag: UNSTORABLE_TAG, bytes: NOTHING };
const WRITERS = 'The next read loads it again. If this recurs, find the other program that writes to this key.';

function hex(checksum: number): string {
  return checksum.toString(16).padStart(8, '0');
}

function refuse(reason: UnreadableReason, found: string, remedy: string): Opened {
  return { ok: false, reason, message: `${found} ${remedy}` };
}
