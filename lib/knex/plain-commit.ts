import type { BumpTarget } from '../ports/source.js';
import { bumpPaths } from '../write/bump-paths.js';
import type { BumpServers } from '../write/bump-scopes.js';
import type { CommitStrategy } from './commit-strategy.js';

/**
 * A commit whose bump follows it (ladder step 2). Between the commit and the bump, readers may still meet the value from
 * before. Nothing happens before COMMIT, so nothing is to be undone after a rollback.
 */
export class PlainCommit implements CommitStrategy {
  readonly preparation = '';
  readonly lookups = [];
  readonly #bumps: BumpTarget;

  constructor(bumps: BumpTarget) {
    this.#bumps = bumps;
  }

  async beforeBegin(): Promise<void> {}

  async beforeCommit(): Promise<void> {}

  async aborted(): Promise<void> {}

  unknown(): void {}

  async bump(paths: readonly string[]): Promise<BumpServers> {
    const { cache, bumpDeadlineMs: deadlineMs, foreign: onForeign } = this.#bumps;
    const partitions = await this.#bumps.present();
    return bumpPaths({ partitions, cache, paths, deadlineMs, onForeign });
  }

  ended(): void {}

  outcome(): Record<never, never> {
    return {};
  }
}
