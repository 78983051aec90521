import { EventEmitter } from 'node:events';
import type { CacheEvents } from './events.js';

type Name = keyof CacheEvents;
type Listener<K extends Name> = (event: CacheEvents[K][0]) => void;

/**
 * The event surface of a cache. A listener runs in the turn of what it hears of, and costs what it costs there;
 * one that throws is reported by `process.emitWarning` and never reaches a caller of the cache.
 */
export class Telemetry {
  readonly #emitter = new EventEmitter().setMaxListeners(0);

  /** Hears an event from now on. Returns how to stop. */
  on<K extends Name>(name: K, listener: Listener<K>): () => void {
    const warn = (error: unknown): void =>
      process.emitWarning(`A gencache listener of "${name}" threw: ${String(error)}`, 'GencacheListenerWarning');
    const guarded: Listener<K> = (event) => {
      try {
        const result: unknown = listener(event);
        if (result instanceof Promise) result.catch(warn);
      } catch (error) {
        warn(error);
      }
    };
    this.#emitter.on(name, guarded);
    return () => this.#emitter.off(name, guarded);
  }

  emit<K extends Name>(name: K, event: CacheEvents[K][0]): void {
    this.#emitter.emit(name, event);
  }

  /** Whether an event has to be made at all. */
  hears(name: Name): boolean {
    return this.#emitter.listenerCount(name) > 0;
  }
}
