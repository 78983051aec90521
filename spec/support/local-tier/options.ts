import { type CacheSettings, checkOptions as check, type CheckedOptions } from '../../../lib/options.js';

export type * from '../../../lib/options.js';

/** `checkOptions` of `lib/options.ts`, with a local tier by default. */
export function checkOptions(settings: CacheSettings): CheckedOptions {
  const local = { mode: process.env['LOCAL_TIER'] as 'verify' | 'track', maxEntries: 100_000 };
  return check(settings === undefined || 'local' in settings ? settings : { ...settings, local });
}
