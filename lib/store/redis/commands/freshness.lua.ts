import { FRESHNESS_OF } from './includes/freshness.lua.js';

export const FRESHNESS = `
-- Tells how long the store is known to be fresh.
-- KEYS: [1] the freshness key. Returns { its value or false, its TTL in ms }; without the key false and 0.
-- Atomic, so that the TTL is that of the value.
${FRESHNESS_OF}
return { freshness(KEYS[1]) }
`;
