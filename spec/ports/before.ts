import type { Store } from '../../lib/index.js';

/** The same store, which does something else first when it is asked for this: what others do between two commands. */
export function before(store: Store, call: 'read' | 'mint', first: () => Promise<void>): Store {
  return new Proxy(store, {
    get(target, name) {
      // With the store itself as `this`: it has private fields.
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      const method = value.bind(target) as (...args: unknown[]) => unknown;
      return name === call ? (...args: unknown[]) => first().then(() => method(...args)) : method;
    },
  });
}
