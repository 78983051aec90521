import { expect, jest, test } from '@jest/globals';
import * as gencache from 'gencache';
import { manualClock } from 'gencache/testing';
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

test('a subpath is imported', () => {
  expect(manualClock().nowMs()).toBe(0);
});
