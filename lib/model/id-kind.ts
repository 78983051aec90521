import { createHash } from 'node:crypto';

/**
 * The type of a namespace's ids, and the equality between them.
 *
 * A kind turns an id that callers pass (`In`) into one canonical value (`Out`, which loaders get), and that value into
 * its text in keys. **Invariant.** Two ids have the same text if and only if their kind calls them the same id; no text
 * holds a character that the key grammar (`key.ts`) uses.
 */
export interface IdKind<In, Out> {
  /** For messages: `integer`, `nullable text`. */
  readonly name: string;
  /** The ids of this kind, for messages: `a string`. */
  readonly holds: string;
  /** Returns the canonical value; `undefined` for an input that this kind can't hold. */
  value(input: unknown): Out | undefined;
  /** Returns the text of a canonical value in a key. */
  text(value: Out): string;
  /** Never set: only the compiler knows `In`. */
  readonly [accepts]?: In;
}

declare const accepts: unique symbol;

/**
 * A PostgreSQL `integer` or `bigint`: 42, 42n and the "42" that pg returns for a bigint are one id. `int4()` suits a column
 * that is never a `bigint`: its loaders get a number.
 *
 * Loaders get a number where it is exact, and decimal text beyond 2^53, as pg itself returns such a bigint.
 */
export function integer(): IdKind<number | bigint | string, number | string> {
  return INTEGER;
}

/**
 * A PostgreSQL `integer`, within its 32 bits: 42, 42n and "42" are one id. Loaders get a number. An id that no such column
 * can hold is rejected before any query.
 */
export function int4(): IdKind<number | bigint | string, number> {
  return INT4;
}

/** Text, compared character by character: `"42"` and `"042"` are two ids, and neither is an integer's 42. */
export function text(): IdKind<string, string> {
  return TEXT;
}

/** A UUID in its hyphenated form, compared without regard to case, as PostgreSQL does. Loaders get lower case. */
export function uuid(): IdKind<string, string> {
  return UUID;
}

/** The ids of `kind`, and `null`, an id of its own, different from `"null"`. */
export function nullable<In, Out>(kind: IdKind<In, Out>): IdKind<In | null, Out | null> {
  return {
    name: NULLABLE + kind.name,
    holds: `${kind.holds}, or null`,
    value: (input) => (input === null ? null : kind.value(input)),
    text: (value) => (value === null ? NULL_TEXT : kind.text(value)),
  };
}

/**
 * Whether an id of the kind of this name may have this text in a path, for programs that know of a kind its name alone; true
 * for a kind that this package does not have.
 */
export function mayBeText(kind: string, text: string): boolean {
  if (kind.startsWith(NULLABLE)) return text === NULL_TEXT || mayBeText(kind.slice(NULLABLE.length), text);
  const known = [INTEGER, INT4, UUID].find(({ name }) => name === kind) as IdKind<unknown, unknown> | undefined;
  if (known === undefined) return kind !== TEXT.name || text !== NULL_TEXT;
  const value = known.value(text);
  return value !== undefined && known.text(value) === text;
}

const NULLABLE = 'nullable ';
/** Never the text of another id, where `~` is escaped. */
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

const INT4_MIN = -(2 ** 31);
const INT4_MAX = 2 ** 31 - 1;

const INT4: IdKind<number | bigint | string, number> = {
  name: 'int4',
  holds: `an integer from ${INT4_MIN} to ${INT4_MAX}, as a number, a bigint or canonical decimal text`,
  value(input) {
    const value = INTEGER.value(input);
    return typeof value === 'number' && value >= INT4_MIN && value <= INT4_MAX ? value : undefined;
  },
  text: String,
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
/** Characters that encodeURIComponent leaves as they are, and that the grammar or `NULL_TEXT` reserves. */
const LEFT_BY_ENCODE_URI = /^[!~*'()]$/;
/** Above this many escaped characters a key holds the id's SHA-256 in its place, so that keys stay short. */
const ESCAPED_MAX = 200;

/**
 * Percent-encodes UTF-8; a lone surrogate, which UTF-8 can't express, becomes `%uD800`; text longer than 200 escaped
 * characters becomes `%h` and the SHA-256 of its escaped form. The three forms never collide, since neither `u` nor `h`
 * is a hexadecimal digit. In PL/pgSQL: `encode(sha256(convert_to(escaped, 'UTF8')), 'hex')`.
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
