import { type CacheSettings, checkOptions as check, type CheckedOptions } from '../../../lib/options.js';

export type * from '../../../lib/options.js';

/** `checkOptions` of `lib/options.ts`, with a local tier by default. */
export function checkOptions(settings: CacheSettings): CheckedOptions {
  const local = { mode: 'verify', maxEntries: 100_000 } as const;
  return check(settings === undefined || 'local' in settings ? settings : { ...settings, local });
}
