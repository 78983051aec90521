import { monotonicMs } from '../async/scheduling.js';
import type { GenerationState } from '../model/generation.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { Partitions } from '../ports/partitions.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import type { BumpError } from './bump-error.js';
import { bumpScopes, foreignDeleted } from './bump-scopes.js';
import type { UnbumpedScopes } from './unbumped-scopes.js';

export interface BumpLabels {
  readonly cause: string;
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
}

interface BumperOptions {
  readonly partitions: Partitions;
  readonly telemetry: Emitter;
  readonly cache: string;
  readonly bumpDeadlineMs: number;
  /** Returns the minimum TTL of a bumped generation, in ms. */
  readonly ttlMs: () => number;
  readonly unbumped: UnbumpedScopes;
}

/**
 * Bumps the declared scopes of one cache, and emits `bump` events.
 *
 * A process may die between the caller's commit and the command: then cached entries stay for their TTL (ladder step 1).
 */
export class Bumper {
  readonly #partitions: Partitions;
  readonly #telemetry: Emitter;
  readonly #cache: string;
  readonly #bumpDeadlineMs: number;
  readonly #ttlMs: () => number;
  readonly #unbumped: UnbumpedScopes;

  constructor({ partitions, telemetry, cache, bumpDeadlineMs, ttlMs, unbumped }: BumperOptions) {
    this.#partitions = partitions;
    this.#telemetry = telemetry;
    this.#cache = cache;
    this.#bumpDeadlineMs = bumpDeadlineMs;
    this.#ttlMs = ttlMs;
    this.#unbumped = unbumped;
  }

  /**
   * Bumps `scopes`, each distinct scope once. Costs one command for each 1,000 distinct scopes of a partition; global is in
   * each of them. Throws BumpError.
   */
  async bump(namespace: string, scopes: readonly RegisteredScope[], labels: BumpLabels): Promise<void> {
    const startedAtMs = monotonicMs();
    const distinct = scopes.length === 1 ? scopes : [...new Map(scopes.map((scope) => [scope.path, scope])).values()];
    const located = this.#partitions.count === 1 ? distinct : distinct.flatMap((scope) => scope.copies ?? scope);
    const step = this.#unbumped.begin();
    let moved = 0;
    let error: BumpError | undefined;
    if (!this.#partitions.bypassed) {
      try {
        await bumpScopes({
          partitions: this.#partitions,
          scopes: located,
          level: namespace,
          deadlineMs: this.#bumpDeadlineMs,
          ttlMs: this.#ttlMs(),
          afterFailure: 'continue',
          onReply: (bumped, states) => {
            moved += remember(bumped, states);
            // A bump of global has succeeded once it has in each partition.
            if (this.#unbumped.size > 0 && located === distinct)
              this.#unbumped.succeeded(
                bumped.map(({ path }) => path),
                step,
              );
          },
          onForeign: (paths) => this.#telemetry.emit('warning', { cache: this.#cache, message: foreignDeleted(paths) }),
          onStoreFailure: (failure) =>
            this.#telemetry.emit('storeFailure', { cache: this.#cache, operation: 'bump', error: failure }),
        });
      } catch (thrown) {
        error = thrown as BumpError;
        this.#unbumped.failed(error.paths);
      }
      if (located !== distinct && this.#unbumped.size > 0) {
        const paths = distinct.map(({ path }) => path).filter((path) => error?.paths.includes(path) !== true);
        this.#unbumped.succeeded(paths, step);
      }
    }
    this.#telemetry.emit('bump', {
      cache: this.#cache,
      namespace,
      origin: 'call',
      ...labels,
      bumps: distinct.length,
      moved: Math.min(moved, distinct.length),
      durationMs: monotonicMs() - startedAtMs,
      paths: distinct.slice(0, 10).map((scope) => scope.path),
      error,
    });
    if (error) throw error;
  }
}

/** Remembers the new generations. Returns the number of scopes that had a generation, of any form. */
function remember(scopes: readonly RegisteredScope[], states: readonly GenerationState[]): number {
  let moved = 0;
  for (let i = 0; i < scopes.length; i++) {
    const state = states[i]!;
    // A scope under quarantine counts as moved: no reader sees its old entries.
    scopes[i]!.remembered = state === 'missing' || state === 'quarantined' || state === 'foreign' ? undefined : state;
    if (state !== 'missing') moved++;
  }
  return moved;
}
