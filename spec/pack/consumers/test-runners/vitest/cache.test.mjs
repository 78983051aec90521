import * as gencache from 'gencache';
import { expect, test, vi } from 'vitest';
import { scenario } from '../scenario.js';

test('a cache works', () => scenario(gencache, expect));

test.for([undefined, ['nextTick', 'setTimeout', 'setImmediate', 'performance', 'Date', 'queueMicrotask']])(
  'a cache works under fake timers: %s',
  async (toFake) => {
    vi.useFakeTimers(toFake && { toFake });
    try {
      await scenario(gencache, expect);
    } finally {
      vi.useRealTimers();
    }
  },
);
