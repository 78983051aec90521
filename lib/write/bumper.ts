import { Deadline } from '../async/deadline.js';
import { BumpError } from './bump-error.js';
import type { Attributes } from '../telemetry/events.js';
import { GENERATION_RULE, nonce } from '../model/generation.js';
import type { Scope } from '../model/scope.js';
import { type Store, StoreUnavailableError } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';

/** One bump command moves at most this many scopes: a few ms of Redis. */
export const BUMP_SCOPES_MAX = 1_000;

export interface BumpLabels {
  readonly cause: string;
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
}

/**
 * Gives scopes generations never used before.
 *
 * Between the caller's commit and this command a process may die: then what was cached stays for its TTL (ladder
 * step 1). Between the command and its reply a connection may die: then the outcome is unknown, the call rejects, and
 * nothing is resent; bumping again, with another nonce, is harmless.
 */
export class Bumper {
  readonly #store: Store;
  readonly #telemetry: Emitter;
  readonly #cache: string;
  readonly #bumpDeadlineMs: number;
  /** What a generation is kept for at least. */
  readonly #ttlMs: () => number;

  constructor(store: Store, telemetry: Emitter, cache: string, bumpDeadlineMs: number, ttlMs: () => number) {
    this.#store = store;
    this.#telemetry = telemetry;
    this.#cache = cache;
    this.#bumpDeadlineMs = bumpDeadlineMs;
    this.#ttlMs = ttlMs;
  }

  /** One command for each 1,000 distinct scopes, one after another. Throws BumpError. */
  async bump(level: string, asked: readonly Scope[], labels: BumpLabels): Promise<void> {
    const startedAtMs = performance.now();
    const scopes = asked.length === 1 ? asked : [...new Map(asked.map((scope) => [scope.path, scope])).values()];
    let moved = 0;
    const failures: BumpError[] = [];
    for (let start = 0; start < scopes.length; start += BUMP_SCOPES_MAX) {
      try {
        moved += await this.#bumpChunk(level, scopes.slice(start, start + BUMP_SCOPES_MAX));
      } catch (error) {
        // The others are bumped all the same: a caller that retries must not meet the same scope first for ever.
        failures.push(error as BumpError);
      }
    }
    const error = failures.length > 0 ? together(failures) : undefined;
    this.#telemetry.emit('bump', {
      cache: this.#cache,
      level,
      ...labels,
      bumps: scopes.length,
      moved,
      durationMs: performance.now() - startedAtMs,
      paths: scopes.slice(0, 10).map((scope) => scope.path),
      error,
    });
    if (error) throw error;
  }

  async #bumpChunk(level: string, scopes: readonly Scope[]): Promise<number> {
    if (this.#store.bypassed) return 0;
    const keys = scopes.map((scope) => scope.generationKey);
    const deadline = new Deadline('bump', this.#bumpDeadlineMs);
    let replies;
    try {
      replies = await this.#store.bump(keys, nonce(), this.#ttlMs(), deadline);
    } catch (cause) {
      this.#telemetry.emit('storeFailure', { cache: this.#cache, operation: 'bump', error: cause as Error });
      throw failed(level, scopes, cause as Error);
    } finally {
      deadline.clear();
    }
    let moved = 0;
    const foreign: Scope[] = [];
    for (let i = 0; i < scopes.length; i++) {
      const scope = scopes[i]!;
      const reply = replies[i]!;
      // Under quarantine nothing old can be read, which is what was asked for.
      scope.remembered = reply === 'missing' || reply === 'quarantined' || reply === 'foreign' ? undefined : reply;
      if (reply === 'foreign') foreign.push(scope);
      else if (reply !== 'missing') moved++;
    }
    if (foreign.length > 0) throw isForeign(level, foreign);
    return moved;
  }
}

/** One error for all commands that failed: the first one's, with the scopes of all; the less is known, the worse. */
function together(failures: readonly BumpError[]): BumpError {
  const [first] = failures;
  if (failures.length === 1) return first!;
  const outcomes = failures.map(({ outcome }) => outcome);
  const outcome = (['unknown', 'not_sent', 'refused'] as const).find((one) => outcomes.includes(one))!;
  const paths = failures.flatMap((failure) => failure.paths);
  return new BumpError(outcome, paths, `${failures.length} commands of one bump failed. The first: ${first!.message}`, {
    cause: first,
  });
}

function failed(level: string, scopes: readonly Scope[], cause: Error): BumpError {
  const outcome = cause instanceof StoreUnavailableError && !cause.sent ? 'not_sent' : 'unknown';
  const known = outcome === 'not_sent' ? 'It was not sent' : 'Whether it was carried out is unknown';
  return new BumpError(
    outcome,
    scopes.map((scope) => scope.path),
    `A bump must reach the store, or what was cached before it stays readable. The bump of ${scopes.length} ${level} ` +
      `failed: ${cause.message} ${known}. Bump again: it is harmless, and the only remedy before the TTL.`,
    { cause },
  );
}

function isForeign(level: string, scopes: readonly Scope[]): BumpError {
  return new BumpError(
    'refused',
    scopes.map((scope) => scope.path),
    `A generation is ${GENERATION_RULE}, in a string. ${scopes.length} of the ${level} to bump have something else at ` +
      `their key, first ${scopes[0]!.generationKey}. It was left alone, and readers of those scopes bypass the cache. ` +
      'See who writes there; delete the key if nobody needs it.',
  );
}
