import { withDeadline } from '../async/deadline.js';
import { type GenerationState, nonce } from '../model/generation.js';
import type { LocatedScope, Partition, Partitions } from '../ports/partitions.js';
import { StoreUnavailableError } from '../ports/store.js';
import { BumpError } from './bump-error.js';

/** Most scopes of one bump command, which occupies Redis for a few ms. */
export const BUMP_SCOPES_MAX = 1_000;

export interface BumpRequest<Scope extends LocatedScope> {
  readonly partitions: Partitions;
  /** Distinct scopes, declared in this process or not; global once for each partition. */
  readonly scopes: readonly Scope[];
  /** Name of the scopes in messages: `customer`. */
  readonly level: string;
  /** Deadline of each command, in ms. */
  readonly deadlineMs: number;
  /** TTL of a bumped generation with less than half of it left, in ms; 0 leaves TTLs to fills, which renew the TTLs of the scopes above them. */
  readonly ttlMs: number;
  /**
   * Whether the next commands follow a command that failed. `continue` suits a caller that retries, so that one scope
   * does not delay all others; `stop` suits a caller that holds a transaction open.
   */
  readonly afterFailure: 'continue' | 'stop';
  /** Called with the reply to each command, the new states of its generations: `scopes: [n] -> states: [n]`. */
  readonly onReply?: (scopes: readonly Scope[], states: readonly GenerationState[]) => void;
  /** Called with the paths at whose keys a command found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
  /** Called with the store's error for each command that failed. */
  readonly onStoreFailure?: (error: Error) => void;
}

/**
 * The incarnation of the store that carried out all commands of a partition, for each partition with commands; undefined
 * if there were several, or if the store does not report one.
 */
export type BumpServers = ReadonlyMap<Partition, string | undefined>;

/** The outcome of a bump in one partition. */
export interface PartitionBump {
  readonly partition: Partition;
  /** As in `BumpServers`. */
  readonly server: string | undefined;
  /** The commands that failed. */
  readonly failures: readonly BumpError[];
}

/**
 * Gives scopes generations that were never used before. Every bump reaches a store by this function, but those of a
 * lift and of a repair.
 *
 * Costs one command for each 1,000 scopes of a partition, one after another, and those of several partitions at the same
 * time; each command is under a deadline and has a nonce of its own. A
 * connection may die between a command and its reply: then the outcome is unknown, no command is resent (docs/protocol.md,
 * rule 8), and the call rejects; another bump, with another nonce, is harmless. Throws BumpError, whose `paths` are all
 * scopes that must be bumped again.
 *
 * Returns the servers that carried out the commands; without scopes, the server of the only partition.
 */
export async function bumpScopes<Scope extends LocatedScope>(request: BumpRequest<Scope>): Promise<BumpServers> {
  const { partitions, scopes } = request;
  const groups = partitions.group(scopes);
  const bumps =
    groups.length === 1
      ? [await bumpPartition(request, groups[0]!)]
      : await Promise.all(groups.map((group) => bumpPartition(request, group)));
  const failures = bumps.flatMap((bump) => bump.failures);
  if (failures.length > 0) throw together(failures);
  const { first, isPartitioned } = partitions;
  if (bumps.length === 0 && !isPartitioned) return new Map([[first, first.store.incarnation]]);
  return new Map(bumps.map(({ partition, server }) => [partition, server]));
}

/**
 * Bumps the scopes of one partition. The server is read when each reply arrives, while the connection that brought the reply
 * is in use. Never rejects.
 */
export async function bumpPartition<Scope extends LocatedScope>(
  request: Omit<BumpRequest<Scope>, 'partitions' | 'scopes'>,
  [partition, scopes]: readonly [Partition, readonly Scope[]],
): Promise<PartitionBump> {
  const { level, deadlineMs, ttlMs, afterFailure } = request;
  const { store } = partition;
  const failures: BumpError[] = [];
  let server: string | undefined;
  for (let start = 0; start < scopes.length; start += BUMP_SCOPES_MAX) {
    const chunk = scopes.length <= BUMP_SCOPES_MAX ? scopes : scopes.slice(start, start + BUMP_SCOPES_MAX);
    const keys = chunk.map((scope) => scope.generationKey);
    try {
      const replies = await withDeadline('bump', deadlineMs, (deadline) => store.bump(keys, nonce(), ttlMs, deadline));
      server = start === 0 || server === store.incarnation ? store.incarnation : undefined;
      request.onReply?.(chunk, replies);
      const foreign = chunk.filter((_, i) => replies[i] === 'foreign');
      if (foreign.length > 0) request.onForeign(foreign.map(({ path }) => path));
    } catch (cause) {
      request.onStoreFailure?.(cause as Error);
      failures.push(failed(level, chunk, cause as Error));
      if (afterFailure === 'stop') break;
    } finally {
      partition.changed?.(keys);
    }
  }
  return { partition, server, failures };
}

/** Resolves once all of these bumps have succeeded. Throws BumpError once all have ended. */
export async function bumpsTogether(bumps: readonly Promise<unknown>[]): Promise<void> {
  const ended = await Promise.allSettled(bumps);
  const failures = ended.flatMap((bump) => (bump.status === 'rejected' ? (bump.reason as BumpError) : []));
  if (failures.length > 0) throw together(failures);
}

/** Joins the errors of all commands that failed: the first message, the scopes of all, and the least certain outcome. */
function together(failures: readonly BumpError[]): BumpError {
  const [first] = failures;
  if (failures.length === 1) return first!;
  const outcomes = failures.map(({ outcome }) => outcome);
  const outcome = outcomes.includes('unknown') ? 'unknown' : 'not_sent';
  // A bump of global is one command for each partition.
  const paths = [...new Set(failures.flatMap((failure) => failure.paths))];
  const message = `${failures.length} commands of one bump failed. The first: ${first!.message}`;
  return new BumpError({ outcome, paths, message, cause: first });
}

function failed(level: string, scopes: readonly LocatedScope[], cause: Error): BumpError {
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

/** The message of a warning about foreign values that a bump deleted. */
export function foreignDeleted(paths: readonly string[]): string {
  return (
    `A bump deleted ${paths.length} foreign ${paths.length === 1 ? 'value' : 'values'} at the keys of generations, first that of ` +
    `${paths[0] || 'global'}. Readers load again. Find the program that writes there, unless a later release runs beside this one.`
  );
}
