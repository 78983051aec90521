const { expect } = require('expect');
const gencache = require('gencache');
const { test } = require('node:test');
const sinon = require('sinon');
const { scenario } = require('../scenario.js');

test('a cache works under fake timers', async () => {
  const clock = sinon.useFakeTimers();
  try {
    await scenario(gencache, expect);
  } finally {
    clock.restore();
  }
});
