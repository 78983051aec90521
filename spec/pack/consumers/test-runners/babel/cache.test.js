import * as gencache from 'gencache';
import { scenario } from '../scenario.js';

test('a cache works', () => scenario(gencache, expect));

test('a cache works under fake timers', async () => {
  jest.useFakeTimers();
  try {
    await scenario(gencache, expect);
  } finally {
    jest.useRealTimers();
  }
});
