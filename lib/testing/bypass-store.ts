import type { Store } from '../ports/store.js';

/**
 * A store without content: every read goes to the loader and fills nothing, every bump succeeds at once.
 *
 * For tests of code around a cache that must see the database as it is, without a Redis and without the bumps that
 * `memoryStore()` needs. Reads of one turn still share a query, as with any store.
 *
 *     const cache = new GenerationalCache({ name: 'shop', store: bypassStore(), source: knexSource(db) });
 */
export function bypassStore(): Store {
  return {
    name: 'bypass',
    bypassed: true,
    incarnation: 'bypass',
    read: async (keys) => keys.map(() => null),
    mint: async (keys, token) => keys.map(() => token),
    bump: async (keys) => keys.map(() => 'missing'),
    claim: async ({ entries }) => ({ claims: entries.map(() => 'leaseless'), timeMs: Date.now() }),
    renewLeases: async () => {},
    failLeases: async () => {},
    fill: async ({ entries }) => ({ replies: entries.map(() => 'moved'), timeMs: Date.now() }),
    delete: async () => 0,
    quarantine: async (keys) => keys.length,
    lift: async (keys) => keys.map(() => 'kept'),
    timeMs: async () => Date.now(),
    renew: async () => 'renewed',
    repair: async () => {},
    readMark: async () => null,
    close: async () => {},
  };
}
