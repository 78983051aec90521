import type { AsyncFunc, Func, Test } from 'mocha';

/**
 * A spec of what the local tier changes, which `npm run test:local` leaves out: the keys of a command, a value that its reader
 * changes. Each file of a parallel worker has an `it` of its own, while this module is loaded once for all of them, so it is
 * looked up at each call.
 */
export function itWithoutTier(title: string, spec: Func | AsyncFunc): Test {
  const define = process.env['LOCAL_TIER'] === undefined ? it : it.skip;
  return define(title, spec as AsyncFunc);
}
