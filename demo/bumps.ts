import type { Relay } from '../lib/knex/index.js';

/** Numbers of scopes that a relay has bumped so far, by namespace. */
export interface Bumps {
  readonly global: number;
  readonly detector: number;
  readonly environment: number;
}

/** Counts the scopes that a relay bumps from now on. */
export function countBumps(relay: Relay): () => Bumps {
  const bumps = { global: 0, detector: 0, environment: 0 };
  relay.on('batch', ({ paths }) => {
    for (const path of paths) {
      if (path === '') bumps.global++;
      else if (path.includes('/')) bumps.environment++;
      else bumps.detector++;
    }
  });
  return () => ({ ...bumps });
}
