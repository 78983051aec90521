import { inNoContext } from './async/no-context.js';
import type { InFlight } from './async/in-flight.js';
import { ConfigurationError } from './errors/errors.js';
import type { CacheDeclaration } from './model/cache-declaration.js';
import { LIBRARY_VERSION } from './model/library-version.js';
import type { NamespaceNode } from './model/namespace-node.js';
import type { CheckedOptions } from './options.js';
import type { Clock } from './ports/clock.js';
import type { Source } from './ports/source.js';
import type { Emitter } from './telemetry/emitter.js';

/** Time between two publications of one process, in ms; jitter shortens it by up to a tenth. */
export const PUBLISH_EVERY_MS = 3_600_000;
/** Time after which a failed publication is tried again, and one of a tree that has grown follows the last, in ms. */
const SOON_MS = 10_000;

interface PublisherOptions {
  readonly source: Source<object, unknown>;
  readonly options: CheckedOptions;
  readonly root: NamespaceNode;
  readonly telemetry: Emitter;
  readonly inFlight: InFlight;
  readonly clock: Clock;
}

/**
 * Publishes what this cache is, by its source: after the first load or bump of the process, once an hour after that, and
 * when more was declared.
 *
 * It waits for a load or a bump, since at that time the application has declared its namespaces, and uses its database
 * anyway. A hit costs nothing. No caller waits for a publication, and no call fails with one. There is no timer: a
 * process that neither loads nor bumps has nothing to say.
 */
export class Publisher {
  readonly #options: PublisherOptions;
  #dueAtMs = -Infinity;
  #soonAtMs = -Infinity;
  /** The tree had so many declarations at the last attempt. */
  #declarations = 0;
  #published: CacheDeclaration | undefined;
  #isUnderWay = false;
  #isClosed = false;
  #hasWarned = false;

  constructor(options: PublisherOptions) {
    this.#options = options;
    const { telemetry } = options;
    telemetry.on('load', this.#publishIfDue);
    telemetry.on('bump', this.#publishIfDue);
  }

  /** Publishes nothing more. A publication under way is in flight, and ends within seconds. */
  close(): void {
    this.#isClosed = true;
  }

  readonly #publishIfDue = (): void => {
    const nowMs = this.#options.clock.nowMs();
    const hasGrown = this.#options.root.declarations !== this.#declarations;
    if (nowMs < (hasGrown ? this.#soonAtMs : this.#dueAtMs) || this.#isUnderWay || this.#isClosed) return;
    this.#options.inFlight.track(inNoContext(this.#publish, nowMs));
  };

  readonly #publish = async (nowMs: number): Promise<void> => {
    const { source, options, root, telemetry } = this.#options;
    this.#isUnderWay = true;
    this.#soonAtMs = nowMs + SOON_MS;
    this.#dueAtMs = nowMs + PUBLISH_EVERY_MS * (1 - Math.random() / 10);
    this.#declarations = root.declarations;
    const { name: cache, maxStalenessMs = null, schemaVersion } = options;
    const declaration = { cache, maxStalenessMs, schemaVersion, library: LIBRARY_VERSION, ...root.contents };
    try {
      await source.publish!(declaration, this.#published);
      this.#published = declaration;
    } catch (error) {
      this.#dueAtMs = this.#soonAtMs;
      if (!(error instanceof ConfigurationError) || this.#hasWarned) return;
      this.#hasWarned = true;
      const fact =
        'The cache works, but triggers and paths are not checked against its namespaces, which are not published.';
      telemetry.emit('warning', { cache, message: `${fact} ${error.message}` });
    } finally {
      this.#isUnderWay = false;
    }
  };
}
