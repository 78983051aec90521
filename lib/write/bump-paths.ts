import type { GenerationKey } from '../model/key.js';
import type { Partition, Partitions } from '../ports/partitions.js';
import { BUMP_SCOPES_MAX, type BumpServers, bumpScopes } from './bump-scopes.js';

interface BumpPathsRequest {
  readonly partitions: Partitions;
  readonly cache: string;
  /** Distinct paths. */
  readonly paths: readonly string[];
  /** Deadline of each command, in ms. */
  readonly deadlineMs: number;
  /** Called with the paths at whose keys the bump found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
}

/**
 * Bumps scopes by their paths, declared in this process or not. Costs one command for each 1,000 scopes of a partition,
 * and stops in each partition at the first command that fails. Returns the servers, as `bumpScopes` does. Throws BumpError.
 */
export function bumpPaths({ partitions, cache, paths, deadlineMs, onForeign }: BumpPathsRequest): Promise<BumpServers> {
  const scopes = partitions.locate(paths);
  return bumpScopes({ partitions, scopes, level: cache, deadlineMs, ttlMs: 0, afterFailure: 'stop', onForeign });
}

/** The keys of one command, and the partition that takes it. */
export interface KeysChunk {
  readonly partition: Partition;
  readonly keys: readonly GenerationKey[];
}

/** Returns the generation keys of scopes, in chunks of one command each. */
export function chunksOfKeys(partitions: Partitions, paths: readonly string[]): KeysChunk[] {
  const chunks: KeysChunk[] = [];
  for (const [partition, scopes] of partitions.group(partitions.locate(paths))) {
    for (let start = 0; start < scopes.length; start += BUMP_SCOPES_MAX) {
      const keys = scopes.slice(start, start + BUMP_SCOPES_MAX).map(({ generationKey }) => generationKey);
      chunks.push({ partition, keys });
    }
  }
  return chunks;
}
