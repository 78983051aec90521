/**
 * Runs specs with a local tier: each cache that leaves `local` out has one. LOCAL_TIER=verify, and this file in
 * NODE_OPTIONS, as `npm run test:local` has it. `import` and `require` of `lib/options.ts` in `lib/cache.ts` both resolve
 * to `./options.ts`.
 */
import Module, { register } from 'node:module';
import { fileURLToPath } from 'node:url';

if (process.env.LOCAL_TIER !== undefined) {
  register('./resolve.mjs', import.meta.url);
  const [options, cache] = ['options.ts', 'cache.ts'].map((file) =>
    fileURLToPath(new URL(`../../../lib/${file}`, import.meta.url)),
  );
  const withTier = fileURLToPath(new URL('./options.ts', import.meta.url));
  const resolve = Module._resolveFilename;
  Module._resolveFilename = function (request, parent, ...rest) {
    const resolved = resolve.call(this, request, parent, ...rest);
    return resolved === options && parent?.filename === cache ? withTier : resolved;
  };
}
