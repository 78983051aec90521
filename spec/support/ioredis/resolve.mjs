/** `ioredis` is `ioredis-5`, except where that package imports its own parts. */
export function resolve(specifier, context, next) {
  return next(specifier === 'ioredis' ? 'ioredis-5' : specifier, context);
}
