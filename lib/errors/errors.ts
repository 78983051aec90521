/**
 * The codes of every error of the library, and the policy that errors follow:
 *
 * - misconfiguration throws where it is declared (`ConfigurationError`);
 * - an id its namespace can't hold, or a missing or unknown one, rejects that call (`IdError`);
 * - a loader's own error passes through unwrapped and uncached; a loader that breaks its contract rejects its
 *   callers with `LoaderContractError`, uncached;
 * - a store failure on a read goes to the source and is counted; the caller does not see it;
 * - an entry that can't be decoded is a miss and is counted;
 * - a value that can't be stored is returned to its caller uncached and reported; an explicit `fill` throws it;
 * - a failed bump rejects (`BumpError`). Never silence.
 *
 * The message of a misuse gives the rule, what arrived and the remedy; that of an operation the fact, then the remedy.
 */
export const ERROR_CODES = {
  CONFIGURATION: 'an option or a declaration that cannot work',
  ID: 'ids that name no scope',
  LOADER_CONTRACT: 'a loader returned something other than rows of the ids it was given',
  UNENCODABLE_VALUE: 'a value that would not come back from the store identical',
  OVERSIZED_VALUE: 'a value whose encoded form is above maxValueBytes',
  SCHEMA_MISMATCH: "a value that its entry's schema does not accept",
  STORE_UNAVAILABLE: 'the store could not be asked, or refused',
  DEADLINE: 'the store did not answer in time',
  BUMP: 'a bump that did not happen, or may not have',
  TABLE_LOCKED: 'a table stayed locked by others while triggers were to be installed or removed',
  COMMIT_UNKNOWN: 'COMMIT was sent, and its outcome cannot be told',
  QUARANTINE: 'a strict commit could not put its scopes under quarantine, and was rolled back',
  MIGRATION_BUMP: 'migrations ran, or may have, and the bump after them failed',
  CLOSED: 'the cache was closed before this call',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Base of every error the library makes: a stable `code`, the context as fields, and `cause` where there is one. */
export class GencacheError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** A declaration or an option that can't work. Thrown at construction, never later. */
export class ConfigurationError extends GencacheError {
  constructor(message: string, options?: ErrorOptions) {
    super('CONFIGURATION', message, options);
  }
}

/** Ids that name no scope: one is missing, unknown, or not of its namespace's kind. */
export class IdError extends GencacheError {
  /** The id's name, for instance `detector`. */
  readonly id: string;

  constructor(id: string, message: string) {
    super('ID', message);
    this.id = id;
  }
}

/** A loader returned something other than rows of the ids it was given. */
export class LoaderContractError extends GencacheError {
  readonly entry: string;

  constructor(entry: string, message: string) {
    super('LOADER_CONTRACT', message);
    this.entry = entry;
  }
}

/** A value that would not come back from the cache identical. */
export class UnencodableValueError extends GencacheError {
  /** Where in the value, as one would write it in JavaScript: `value.workflows[3].owner`. */
  readonly path: string;

  constructor(path: string, message: string) {
    super('UNENCODABLE_VALUE', message);
    this.path = path;
  }
}

/** A value whose encoded form is above `maxValueBytes`. */
export class OversizedValueError extends GencacheError {
  readonly bytes: number;
  readonly maxValueBytes: number;

  constructor(bytes: number, maxValueBytes: number, message: string) {
    super('OVERSIZED_VALUE', message);
    this.bytes = bytes;
    this.maxValueBytes = maxValueBytes;
  }
}

/** A value that its entry's schema does not accept. */
export class SchemaMismatchError extends GencacheError {
  constructor(message: string) {
    super('SCHEMA_MISMATCH', message);
  }
}

/** The cache was closed before this call. */
export class ClosedError extends GencacheError {
  constructor(cache: string) {
    super(
      'CLOSED',
      `A closed cache answers no calls. "${cache}" was closed before this one. Close it after the last of them.`,
    );
  }
}
