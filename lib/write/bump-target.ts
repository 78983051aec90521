import type { Engine } from '../engine.js';
import { ConfigurationError } from '../errors/errors.js';
import type { Attributes } from '../telemetry/events.js';
import type { BumpTarget, Outbox } from '../ports/source.js';

/** The outbox of a cache's source. Throws ConfigurationError if it has none. */
export function requireOutbox({ source, options }: Engine): Outbox<unknown> {
  if (source.outbox) return source.outbox;
  throw new ConfigurationError(
    `A bump inside a transaction is recorded in its database. "${options.name}" has a source without an outbox. ` +
      'Pass source: knexSource(db), or bump after the commit.',
  );
}

/** What an outbox bumps a cache's scopes with, and tells of it as the cache tells of its own bumps. */
export function bumpTarget(engine: Engine, level: string, attributes?: Attributes): BumpTarget {
  const { options, store, telemetry } = engine;
  const { name: cache, bumpDeadlineMs } = options;
  return {
    cache,
    store,
    bumpDeadlineMs,
    bumped(paths, cause, durationMs, error) {
      const labels = { cache, level, cause, attributes };
      const bumps = paths.length;
      telemetry.emit('bump', { ...labels, bumps, moved: bumps, durationMs, paths: paths.slice(0, 10), error });
    },
    later: (work) => engine.inFlight.track(work),
  };
}
