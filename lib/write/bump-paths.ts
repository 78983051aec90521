import { type GenerationKey, generationKey, keyPrefix } from '../model/key.js';
import type { Store } from '../ports/store.js';
import { BUMP_SCOPES_MAX, bumpScopes } from './bump-scopes.js';

interface BumpPathsRequest {
  readonly store: Store;
  readonly cache: string;
  /** Distinct paths. */
  readonly paths: readonly string[];
  /** Deadline of each command, in ms. */
  readonly deadlineMs: number;
  /** Called with the paths at whose keys the bump found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
}

/**
 * Bumps scopes by their paths, declared in this process or not. Costs one command for each 1,000 scopes, and stops at the
 * first command that fails. Returns the incarnation of the store that carried out all commands, as `bumpScopes` does.
 * Throws BumpError.
 */
export function bumpPaths({
  store,
  cache,
  paths,
  deadlineMs,
  onForeign,
}: BumpPathsRequest): Promise<string | undefined> {
  const prefix = keyPrefix(cache);
  const scopes = paths.map((path) => ({ path, generationKey: generationKey(prefix, path) }));
  return bumpScopes({ store, scopes, level: cache, deadlineMs, ttlMs: 0, afterFailure: 'stop', onForeign });
}

/** Returns the generation keys of scopes, in chunks of one command each. */
export function chunksOfKeys(cache: string, paths: readonly string[]): GenerationKey[][] {
  const prefix = keyPrefix(cache);
  const chunks: GenerationKey[][] = [];
  for (let start = 0; start < paths.length; start += BUMP_SCOPES_MAX) {
    chunks.push(paths.slice(start, start + BUMP_SCOPES_MAX).map((path) => generationKey(prefix, path)));
  }
  return chunks;
}
