/**
 * Every error of the library, and the policy they follow, stated once:
 *
 * - misconfiguration throws where it is declared (`ConfigurationError`);
 * - an id its namespace can't hold, or a missing or unknown one, rejects that call (`IdError`);
 * - a loader's own error passes through unwrapped and uncached; a loader that breaks its contract rejects its
 *   callers with `LoaderContractError`, uncached;
 * - a store failure on a read goes to the source and is counted; nobody sees it;
 * - an entry that can't be decoded is a miss and is counted;
 * - a value that can't be stored is returned to its caller uncached and reported; an explicit `fill` throws it;
 * - a failed bump rejects (`BumpError`). Never silence.
 *
 * A message gives the rule, what arrived and the remedy, in that order.
 */
export type ErrorCode =
  | 'CONFIGURATION'
  | 'ID'
  | 'LOADER_CONTRACT'
  | 'UNENCODABLE_VALUE'
  | 'OVERSIZED_VALUE'
  | 'SCHEMA_MISMATCH'
  | 'STORE_UNAVAILABLE'
  | 'DEADLINE'
  | 'BUMP'
  | 'TABLE_LOCKED'
  | 'COMMIT_UNKNOWN'
  | 'QUARANTINE'
  | 'MIGRATION_BUMP'
  | 'CLOSED';

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
