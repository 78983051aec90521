import { createHash } from 'node:crypto';

/**
 * What an id of a namespace may be, and which ids are the same one.
 *
 * A kind turns what callers pass (`In`) into one canonical value (`Out`, what loaders get) and that value into
 * the text that stands in keys. **Invariant.** Two ids have the same text exactly if their kind says they are the
 * same id; no text holds a character that the key grammar (`key.ts`) uses.
 */
export interface IdKind<In, Out> {
  /** For messages: `integer`, `nullable text`. */
  readonly name: string;
  /** What the kind can hold, for messages. */
  readonly holds: string;
  /** The canonical value, or `undefined` for what this kind can't hold. */
  value(input: unknown): Out | undefined;
  /** The text of a canonical value in a key. */
  text(value: Out): string;
  /** Never there: what callers may pass is known to the compiler alone. */
  readonly [accepts]?: In;
}

declare const accepts: unique symbol;

/**
 * A PostgreSQL `integer` or `bigint`: 42, 42n and the "42" that pg returns for a bigint are one id.
 *
 * Loaders get a number where it is exact, and decimal text beyond 2^53 (what pg itself uses for such a bigint).
 */
export function integer(): IdKind<number | bigint | string, number | string> {
  return INTEGER;
}

/** Text, compared character by character: `"42"` here is another id than `"042"`, and never an integer's 42. */
export function text(): IdKind<string, string> {
  return TEXT;
}

/** A UUID in its hyphenated form, compared without regard to case, as PostgreSQL does. Loaders get lower case. */
export function uuid(): IdKind<string, string> {
  return UUID;
}

/** The same kind, and `null`, which is an id of its own, different from `"null"`. */
export function nullable<In, Out>(kind: IdKind<In, Out>): IdKind<In | null, Out | null> {
  return {
    name: `nullable ${kind.name}`,
    holds: `${kind.holds}, or null`,
    value: (input) => (input === null ? null : kind.value(input)),
    text: (value) => (value === null ? NULL_TEXT : kind.text(value)),
  };
}

/** Never the text of another id: `~` is escaped there. */
const NULL_TEXT = '~';

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const CANONICAL_DECIMAL = /^(?:0|-?[1-9][0-9]{0,18})$/;

const INTEGER: IdKind<number | bigint | string, number | string> = {
  name: 'integer',
  holds: 'a safe integer, or a bigint or canonical decimal text within 64 bits',
  value(input) {
    if (typeof input === 'number') return Number.isSafeInteger(input) ? input + 0 : undefined;
    if (typeof input === 'bigint') return ofBigInt(input);
    if (typeof input === 'string' && CANONICAL_DECIMAL.test(input)) return ofBigInt(BigInt(input));
    return undefined;
  },
  text: (value) => (typeof value === 'number' ? `${value}` : value),
};

function ofBigInt(value: bigint): number | string | undefined {
  if (value < INT64_MIN || value > INT64_MAX) return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}

const TEXT: IdKind<string, string> = {
  name: 'text',
  holds: 'a string',
  value: (input) => (typeof input === 'string' ? input : undefined),
  text: escape,
};

const HYPHENATED_UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

const UUID: IdKind<string, string> = {
  name: 'uuid',
  holds: 'a hyphenated UUID',
  value: (input) => (typeof input === 'string' && HYPHENATED_UUID.test(input) ? input.toLowerCase() : undefined),
  text: (value) => value,
};

const UNRESERVED = /^[A-Za-z0-9_.-]*$/;
const RESERVED = /[^A-Za-z0-9_.-]/gu;
const LONE_SURROGATE = /^\p{Surrogate}$/u;
/** Characters that encodeURIComponent leaves alone and the grammar, or `NULL_TEXT`, does not. */
const LEFT_BY_ENCODE_URI = /^[!~*'()]$/;
/** Above this many escaped characters the id's SHA-256 stands for it, so that keys stay short. */
const ESCAPED_MAX = 200;

/**
 * Percent-encodes UTF-8; a lone surrogate, which UTF-8 can't say, becomes `%uD800`; text that is still longer than
 * 200 characters becomes `%h` and the SHA-256 of its escaped form. None of the three can be mistaken for another,
 * since neither `u` nor `h` is a hexadecimal digit. In PL/pgSQL: `encode(sha256(convert_to(escaped, 'UTF8')), 'hex')`.
 */
function escape(value: string): string {
  const escaped = UNRESERVED.test(value) ? value : value.replace(RESERVED, escapeCharacter);
  return escaped.length <= ESCAPED_MAX ? escaped : `%h${createHash('sha256').update(escaped).digest('hex')}`;
}

function escapeCharacter(character: string): string {
  const hex = () => character.charCodeAt(0).toString(16).toUpperCase();
  if (LONE_SURROGATE.test(character)) return `%u${hex()}`;
  return LEFT_BY_ENCODE_URI.test(character) ? `%${hex()}` : encodeURIComponent(character);
}
