import { EventEmitter } from 'node:events';
import type { CacheEvents } from './events.js';
import { guarded } from './guarded.js';

/**
 * The events of a cache or a relay. A listener runs synchronously inside the operation that emits, which waits for it.
 * `process.emitWarning` reports a listener that throws or rejects; its error never reaches a caller of the cache.
 */
export class Emitter<Events extends { [K in keyof Events]: readonly [unknown] } = CacheEvents> {
  readonly #emitter = new EventEmitter().setMaxListeners(0);

  /** Adds a listener of an event. Returns the function that removes it. */
  on<K extends keyof Events & string>(name: K, listener: (event: Events[K][0]) => void): () => void {
    const safe = guarded(`listener of "${name}"`, listener);
    this.#emitter.on(name, safe);
    return () => this.#emitter.off(name, safe);
  }

  emit<K extends keyof Events & string>(name: K, event: Events[K][0]): void {
    this.#emitter.emit(name, event);
  }

  /** Whether an event has a listener: without one, an emitter need not make the event. */
  hears(name: keyof Events & string): boolean {
    return this.listeners(name) > 0;
  }

  /** Number of listeners of an event. */
  listeners(name: keyof Events & string): number {
    return this.#emitter.listenerCount(name);
  }
}
