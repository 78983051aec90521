import { monotonicMs } from '../async/scheduling.js';
import type { GenerationState } from '../model/generation.js';
import type { RegisteredScope } from '../model/scope-registry.js';
import type { LocatedScope, Partitions } from '../ports/partitions.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Attributes } from '../telemetry/events.js';
import { BumpError } from './bump-error.js';
import { type BumpRequest, bumpScopes, bumpsTogether, foreignDeleted } from './bump-scopes.js';
import type { UnbumpedScopes } from './unbumped-scopes.js';

export interface BumpLabels {
  readonly cause: string;
  readonly attributes: Attributes | undefined;
  readonly stack: string | undefined;
}

interface BumperOptions {
  readonly partitions: Partitions;
  /** As in BumpTarget; undefined for a store without partitions. */
  readonly present: (() => Promise<Partitions>) | undefined;
  readonly telemetry: Emitter;
  readonly cache: string;
  readonly bumpDeadlineMs: number;
  /** As in BumpRequest. */
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
  readonly #present: (() => Promise<Partitions>) | undefined;
  readonly #telemetry: Emitter;
  readonly #cache: string;
  readonly #bumpDeadlineMs: number;
  readonly #ttlMs: () => number;
  readonly #unbumped: UnbumpedScopes;

  constructor({ partitions, present, telemetry, cache, bumpDeadlineMs, ttlMs, unbumped }: BumperOptions) {
    this.#partitions = partitions;
    this.#present = present;
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
    const isOne = this.#present === undefined;
    const step = this.#unbumped.begin();
    let moved = 0;
    let error: BumpError | undefined;
    if (!this.#partitions.bypassed) {
      const request = this.#request(namespace);
      const own = bumpScopes({
        ...{ ...request, partitions: this.#partitions, scopes: located },
        onReply: (bumped, states) => {
          moved += remember(bumped, states);
          // A bump in several partitions has succeeded once it has in each of them.
          if (this.#unbumped.size > 0 && isOne)
            this.#unbumped.succeeded(
              bumped.map(({ path }) => path),
              step,
            );
        },
      });
      const paths = distinct.map(({ path }) => path);
      try {
        await (isOne ? own : bumpsTogether([own, this.#bumpOthers(request, paths)]));
      } catch (thrown) {
        error = thrown as BumpError;
        this.#unbumped.failed(error.paths);
      }
      if (!isOne && this.#unbumped.size > 0) {
        this.#unbumped.succeeded(
          paths.filter((path) => error?.paths.includes(path) !== true),
          step,
        );
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

  #request(level: string): Omit<BumpRequest<LocatedScope>, 'partitions' | 'scopes' | 'onReply'> {
    return {
      ...{ level, deadlineMs: this.#bumpDeadlineMs, ttlMs: this.#ttlMs(), afterFailure: 'continue' as const },
      onForeign: (paths: readonly string[]) =>
        this.#telemetry.emit('warning', { cache: this.#cache, message: foreignDeleted(paths) }),
      onStoreFailure: (failure: Error) =>
        this.#telemetry.emit('storeFailure', { cache: this.#cache, operation: 'bump', error: failure }),
    };
  }

  /** Bumps these paths in the layouts of other processes. */
  async #bumpOthers(
    request: Omit<BumpRequest<LocatedScope>, 'partitions' | 'scopes'>,
    paths: readonly string[],
  ): Promise<void> {
    let partitions;
    try {
      partitions = await this.#present!();
    } catch (cause) {
      throw unreadLayouts(request.level, paths, cause as Error);
    }
    const scopes = partitions.locate(paths).filter(({ partition }) => partition >= this.#partitions.count);
    if (scopes.length > 0) await bumpScopes({ ...request, partitions, scopes });
  }
}

function unreadLayouts(level: string, paths: readonly string[], cause: Error): BumpError {
  const message =
    `Bump of ${paths.length} ${paths.length === 1 ? 'scope' : 'scopes'} (${level}) reached the processes with this number of ` +
    `partitions alone; the registry of the others could not be read: ${cause.message} Retry: bumps are idempotent.`;
  return new BumpError({ outcome: 'unknown', paths, message, cause });
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
