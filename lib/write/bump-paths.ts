import { BUMP_SCOPES_MAX } from './bumper.js';
import { withDeadline } from '../async/deadline.js';
import { nonce } from '../model/generation.js';
import { type GenerationKey, generationKey, keyPrefix } from '../model/key.js';
import type { Store } from '../ports/store.js';

/**
 * Gives scopes, declared here or not, generations never used before. One command for each 1,000, each under a deadline
 * and with a nonce of its own. Rejects as the store does; bumping again is harmless.
 *
 * Returns the incarnation of the store that took all of them; undefined if they were several, or it does not say. Read as
 * each reply arrives, when the connection that brought it is still the one in use. Of nothing, the one there is.
 *
 * TTLs are left as they are: a fill renews that of each generation above it where it needs to.
 */
export async function bumpPaths(
  store: Store,
  cache: string,
  paths: readonly string[],
  deadlineMs: number,
): Promise<string | undefined> {
  const servers = new Set<string | undefined>();
  for (const keys of chunksOfKeys(cache, paths)) {
    await withDeadline('bump', deadlineMs, (deadline) => store.bump(keys, nonce(), 0, deadline));
    servers.add(store.incarnation);
  }
  return servers.size === 0 ? store.incarnation : commonIncarnation(servers);
}

/** Of the incarnations that took some commands, the one that took all of them; undefined if there is none such. */
export function commonIncarnation(servers: ReadonlySet<string | undefined>): string | undefined {
  return servers.size === 1 ? [...servers][0] : undefined;
}

/** The generations of scopes, in commands' worth. */
export function chunksOfKeys(cache: string, paths: readonly string[]): GenerationKey[][] {
  const prefix = keyPrefix(cache);
  const chunks: GenerationKey[][] = [];
  for (let start = 0; start < paths.length; start += BUMP_SCOPES_MAX) {
    chunks.push(paths.slice(start, start + BUMP_SCOPES_MAX).map((path) => generationKey(prefix, path)));
  }
  return chunks;
}
