const gencache = require('gencache');
const { scenario } = require('../scenario.js');

test('a cache works under fake timers that were there before it', async () => {
  expect(setTimeout).toHaveProperty('clock');
  await scenario(gencache, expect);
});
