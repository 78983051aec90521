import { foreignDeleted } from './bump-scopes.js';
import type { InFlight } from '../async/in-flight.js';
import { ConfigurationError } from '../errors/errors.js';
import type { Attributes, BumpEvent } from '../telemetry/events.js';
import { namespaceOf } from '../model/key.js';
import type { BumpTarget, Outbox, Source } from '../ports/source.js';
import type { Partitions } from '../ports/partitions.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { UnbumpedScopes } from './unbumped-scopes.js';

/** The parts of a cache that its outbox uses. */
interface CacheParts {
  readonly options: { readonly name: string; readonly bumpDeadlineMs: number };
  readonly partitions: Partitions;
  readonly present: () => Promise<Partitions>;
  readonly source: Source<object, unknown>;
  readonly telemetry: Emitter;
  readonly inFlight: InFlight;
  readonly unbumped: UnbumpedScopes;
}

/** Returns the outbox of a cache's source. Throws ConfigurationError for a source without an outbox. */
export function requireOutbox({ source, options }: CacheParts): Outbox<unknown> {
  if (source.outbox) return source.outbox;
  throw new ConfigurationError(
    'The source of a cache must have an outbox for bumps inside a transaction, but got a source without one (cache ' +
      `"${options.name}"). Pass source: knexSource(db), or bump after the commit.`,
  );
}

/** Returns the target of an outbox's bumps, which emits `bump` events as the cache's own bumps do. */
export function bumpTarget(parts: CacheParts, attributes?: Attributes): BumpTarget {
  const { options, partitions, present, telemetry, inFlight, unbumped } = parts;
  const { name: cache, bumpDeadlineMs } = options;
  return {
    cache,
    partitions,
    present,
    bumpDeadlineMs,
    bumped(paths, cause, durationMs, error) {
      if (error !== undefined) unbumped.failed(paths);
      emitBumps(telemetry, paths, { cache, origin: 'transaction', cause, attributes, durationMs, error });
    },
    foreign: (paths) => telemetry.emit('warning', { cache, message: foreignDeleted(paths) }),
    warn: (message) => telemetry.emit('warning', { cache, message }),
    later: (work) => inFlight.track(work),
  };
}

/** Emits a `bump` event for each namespace of these paths, and one without a namespace if no path is known. */
export function emitBumps(
  telemetry: Emitter,
  paths: readonly string[],
  labels: Pick<BumpEvent, 'cache' | 'origin' | 'cause' | 'attributes' | 'durationMs' | 'error'>,
): void {
  const event = { ...labels, moved: undefined };
  const groups = byNamespace(paths);
  if (groups.size === 0) telemetry.emit('bump', { ...event, namespace: undefined, bumps: 0, paths: [] });
  for (const [namespace, own] of groups) {
    telemetry.emit('bump', { ...event, namespace, bumps: own.length, paths: own.slice(0, 10) });
  }
}

/** A transaction records scopes of any namespaces, by its triggers too. */
function byNamespace(paths: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  for (const path of paths) {
    const namespace = namespaceOf(path);
    const group = groups.get(namespace);
    if (group) group.push(path);
    else groups.set(namespace, [path]);
  }
  return groups;
}
