/**
 * The codes of every error of the library, and the policy that errors follow:
 *
 * - A misconfiguration throws where it is declared (`ConfigurationError`).
 * - An id that its namespace can't hold, a missing id and an unknown id reject that call (`IdError`).
 * - A loader's own error passes through unwrapped. A loader that breaks its contract rejects its callers with
 *   `LoaderContractError`. In both cases the cache stores no value.
 * - A load that finds no room under the cap rejects its callers with `SourceOverloadError`, one that takes longer than
 *   its hard timeout with `LoadTimeoutError`.
 * - A store failure on a read goes to the source and is counted; the caller does not see it.
 * - An entry that can't be decoded is a miss and is counted.
 * - A value that can't be stored is returned to its caller uncached, and reported; an explicit `fill` throws.
 * - A failed bump rejects (`BumpError`); no bump fails silently.
 *
 * The message of a misuse gives the rule, the value that arrived and the remedy; the message of a failed operation
 * gives the fact, then the remedy.
 */
export const ERROR_CODES = {
  CONFIGURATION: 'an option or a declaration that cannot work',
  ID: 'ids that name no scope',
  LOADER_CONTRACT: 'a loader whose result is not the rows of the ids it was given',
  UNENCODABLE_VALUE: 'a value that would not come back from the store identical',
  OVERSIZED_VALUE: 'a value whose encoded form is above maxValueBytes',
  SCHEMA_MISMATCH: "a value that its entry's schema does not accept",
  STORE_UNAVAILABLE: 'the store could not be reached, or refused the command',
  DEADLINE: 'the store did not answer in time',
  BUMP: 'a bump that failed, or whose outcome is unknown',
  TABLE_LOCKED: 'a table that other sessions kept locked while triggers were to be installed or removed',
  COMMIT_UNKNOWN: 'COMMIT was sent, and its outcome is unknown',
  QUARANTINE: 'a strict commit could not put its scopes under quarantine, and was rolled back',
  MIGRATION_BUMP: 'the bump after migrations failed; the migrations ran, or may have run',
  SOURCE_OVERLOAD: 'too many loads run or wait already; the source was not asked',
  LOAD_TIMEOUT: 'a loader took longer than the hard timeout of its entry',
  CLOSED: 'the cache was closed before this call',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Base class of every error of the library: a stable `code`, the context as fields, and `cause` where there is one. */
export class GencacheError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** A declaration or an option that can't work. Throws at construction, never later. */
export class ConfigurationError extends GencacheError {
  constructor(message: string, options?: ErrorOptions) {
    super('CONFIGURATION', message, options);
  }
}

/** Ids that name no scope: an id is missing, unknown, or not of its namespace's kind. */
export class IdError extends GencacheError {
  /** The id's name, for instance `detector`. */
  readonly id: string;
  /** The message without its remedy. */
  readonly rule: string;

  constructor(id: string, rule: string, remedy: string) {
    super('ID', `${rule} ${remedy}`);
    this.id = id;
    this.rule = rule;
  }
}

/** A loader whose result is not the rows of the ids it was given. */
export class LoaderContractError extends GencacheError {
  readonly entry: string;

  constructor(entry: string, message: string) {
    super('LOADER_CONTRACT', message);
    this.entry = entry;
  }
}

/** A value that would not come back from the cache identical. */
export class UnencodableValueError extends GencacheError {
  /** Place inside the value, as a JavaScript expression: `value.workflows[3].owner`. */
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

/** Too many loads run or wait already (`loadsMax`, `loadQueueMax`, `loadQueueTimeoutMs`); the source was not asked. */
export class SourceOverloadError extends GencacheError {
  constructor(message: string) {
    super('SOURCE_OVERLOAD', message);
  }
}

/** A loader took longer than `loadHardTimeoutMs`. Its `signal` was aborted; a late result may still fill the cache. */
export class LoadTimeoutError extends GencacheError {
  readonly limitMs: number;

  constructor(entry: string, limitMs: number) {
    super(
      'LOAD_TIMEOUT',
      `A load of entry "${entry}" took longer than ${limitMs} ms (loadHardTimeoutMs), and was told to stop. Look at its ` +
        'query, or raise the timeout.',
    );
    this.limitMs = limitMs;
  }
}

/** The cache was closed before this call. */
export class ClosedError extends GencacheError {
  constructor(cache: string) {
    super('CLOSED', `The cache "${cache}" was closed before this call. Close it after the last call.`);
  }
}
