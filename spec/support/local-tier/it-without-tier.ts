/** A spec of what the local tier changes, which `npm run test:local` leaves out: the keys of a command, a value that its reader changes. */
export const itWithoutTier = process.env['LOCAL_TIER'] === undefined ? it : it.skip;
