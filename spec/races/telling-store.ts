import { momentOf, ownClocks } from '../../lib/async/moment.js';
import type { Store } from '../../lib/index.js';
import type { GenerationKey } from '../../lib/model/key.js';
import type { TrackingListener } from '../../lib/ports/store.js';
import { lend } from '../support/lenders.js';

/** Shorter than the longest heartbeat. */
const BEAT_EVERY_MS = 10_000;
export const INCARNATION = 'told';

/** The processes on one store that track its generations, by their stores. */
export type Listeners = Map<Store, TrackingListener>;

/**
 * One process' view of a store in memory, which tells all other processes of each change before its reply: a network whose
 * pushes take no time, unless `push` delivers them later. It tells the process itself of none, so that its own bumps must
 * count without their pushes.
 */
export function tellingStore(
  store: Store,
  listeners: Listeners,
  push: (listener: TrackingListener, keys: readonly GenerationKey[]) => void = (listener, keys) =>
    listener.changed(keys),
): Store {
  const told = async <T>(keys: readonly string[], work: Promise<T>): Promise<T> => {
    const done = await work;
    for (const [other, listener] of listeners) if (other !== telling) push(listener, keys as GenerationKey[]);
    return done;
  };
  const changing = {
    mint: (...args: Parameters<Store['mint']>) => told(args[0], store.mint(...args)),
    bump: (...args: Parameters<Store['bump']>) => told(args[0], store.bump(...args)),
    delete: (...args: Parameters<Store['delete']>) => told(args[0], store.delete(...args)),
    track: (_options: unknown, listener: TrackingListener) => {
      listeners.set(telling, listener);
      const beat = () => listener.beat({ sentAt: momentOf(ownClocks) });
      listener.reset(INCARNATION);
      beat();
      const timer = setInterval(beat, BEAT_EVERY_MS);
      const close = () => clearInterval(timer);
      lend({ what: 'the beats of a store', close: async () => close() });
      return { close };
    },
  };
  const telling: Store = new Proxy(store, {
    get(target, property) {
      if (property === 'incarnation') return INCARNATION;
      if (property in changing) return changing[property as keyof typeof changing];
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return telling;
}
