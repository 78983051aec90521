const OPTIONS = new URL('../../../lib/options.ts', import.meta.url).href;
const DEFAULTS = new URL('./options.ts', import.meta.url).href;

/** Gives `lib/cache.ts` the options of `./options.ts`. */
export async function resolve(specifier, context, nextResolve) {
  const resolved = await nextResolve(specifier, context);
  const isAsked = resolved.url.startsWith(OPTIONS) && context.parentURL?.includes('/lib/cache.ts');
  return isAsked ? { ...resolved, url: DEFAULTS } : resolved;
}
