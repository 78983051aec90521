import { withDeadline } from '../async/deadline.js';
import { GENERATION_RULE, type GenerationState, nonce } from '../model/generation.js';
import type { GenerationKey } from '../model/key.js';
import { type Store, StoreUnavailableError } from '../ports/store.js';
import { BumpError } from './bump-error.js';

/** One bump command moves at most this many scopes: a few ms of Redis. */
export const BUMP_SCOPES_MAX = 1_000;

/** A scope to bump, declared in this process or not. */
export interface BumpedScope {
  readonly path: string;
  readonly generationKey: GenerationKey;
}

export interface BumpRequest<Scope extends BumpedScope> {
  readonly store: Store;
  /** Distinct. */
  readonly scopes: readonly Scope[];
  /** What the scopes are, for messages: `customer`. */
  readonly level: string;
  /** Of each command. */
  readonly deadlineMs: number;
  /** What a generation is kept for at least, in ms; 0 leaves TTLs to fills, which renew those of the scopes above them. */
  readonly ttlMs: number;
  /**
   * Whether a command that failed is followed by the others. A caller that retries wants that, so that one scope does not
   * hold up all others; a caller that holds a transaction open wants to end.
   */
  readonly afterFailure: 'continue' | 'stop';
  /** Called with the reply to each command: how the generations of its scopes stand now, `scopes: [n] -> states: [n]`. */
  readonly onReply?: (scopes: readonly Scope[], states: readonly GenerationState[]) => void;
  /** Called with the store's error for each command that failed. */
  readonly onStoreFailure?: (error: Error) => void;
}

/**
 * Gives scopes generations never used before: the one way in which bumps reach a store.
 *
 * One command for each 1,000 scopes, one after another, each under a deadline and with a nonce of its own. Between a
 * command and its reply a connection may die: then the outcome is unknown, nothing is resent, and this rejects; bumping
 * again, with another nonce, is harmless. Throws BumpError, whose `paths` are all scopes that have to be bumped again.
 *
 * Returns the incarnation of the store that carried out all commands; undefined if there were several, or the store does
 * not tell. It is read as each reply arrives, when the connection that brought the reply is still the one in use.
 */
export async function bumpScopes<Scope extends BumpedScope>(request: BumpRequest<Scope>): Promise<string | undefined> {
  const { store, scopes, level, deadlineMs, ttlMs, afterFailure } = request;
  const incarnations = new Set<string | undefined>();
  const failures: BumpError[] = [];
  for (let start = 0; start < scopes.length; start += BUMP_SCOPES_MAX) {
    const chunk = scopes.length <= BUMP_SCOPES_MAX ? scopes : scopes.slice(start, start + BUMP_SCOPES_MAX);
    const keys = chunk.map((scope) => scope.generationKey);
    try {
      const replies = await withDeadline('bump', deadlineMs, (deadline) => store.bump(keys, nonce(), ttlMs, deadline));
      incarnations.add(store.incarnation);
      request.onReply?.(chunk, replies);
      const foreign = chunk.filter((_, i) => replies[i] === 'foreign');
      if (foreign.length > 0) failures.push(isForeign(level, foreign));
    } catch (cause) {
      request.onStoreFailure?.(cause as Error);
      failures.push(failed(level, chunk, cause as Error));
      if (afterFailure === 'stop') break;
    }
  }
  if (failures.length > 0) throw together(failures);
  return incarnations.size === 0 ? store.incarnation : commonIncarnation(incarnations);
}

/** The incarnation that carried out every command; undefined if there were several. */
export function commonIncarnation(incarnations: ReadonlySet<string | undefined>): string | undefined {
  return incarnations.size === 1 ? [...incarnations][0] : undefined;
}

/** One error for all commands that failed: the first one's, with the scopes of all, and the outcome of which least is known. */
function together(failures: readonly BumpError[]): BumpError {
  const [first] = failures;
  if (failures.length === 1) return first!;
  const outcomes = failures.map(({ outcome }) => outcome);
  const outcome = (['unknown', 'not_sent', 'refused'] as const).find((one) => outcomes.includes(one))!;
  const paths = failures.flatMap((failure) => failure.paths);
  const message = `${failures.length} commands of one bump failed. The first: ${first!.message}`;
  return new BumpError({ outcome, paths, message, cause: first });
}

function failed(level: string, scopes: readonly BumpedScope[], cause: Error): BumpError {
  const outcome = cause instanceof StoreUnavailableError && !cause.sent ? 'not_sent' : 'unknown';
  const known = outcome === 'not_sent' ? 'the command was not sent' : 'the outcome is unknown';
  return new BumpError({
    outcome,
    paths: scopes.map(({ path }) => path),
    message:
      `Bump of ${scopes.length} ${scopes.length === 1 ? 'scope' : 'scopes'} (${level}) failed; ${known}: ${cause.message} ` +
      'What was cached before stays readable for its TTL. Retry: bumps are idempotent.',
    cause,
  });
}

function isForeign(level: string, scopes: readonly BumpedScope[]): BumpError {
  return new BumpError({
    outcome: 'refused',
    paths: scopes.map(({ path }) => path),
    message:
      `Bump of ${scopes.length} ${scopes.length === 1 ? 'scope' : 'scopes'} (${level}) was refused: the value at ` +
      `${scopes[0]!.generationKey} must be a generation (${GENERATION_RULE}, in a string), but is of another form. It was ` +
      'left alone, and readers of these scopes bypass the cache. Find out what writes there; delete the key if nothing needs it.',
  });
}
