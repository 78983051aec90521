const assert = require('node:assert/strict');
const { SUBPATHS, compare } = require('./compare.cjs');

const required = Object.fromEntries(SUBPATHS.map((subpath) => [subpath, require(`gencache${subpath}`)]));

for (const deep of ['dist/cjs/lib/cache.js', 'dist/module/lib/index.js', 'lib/cache']) {
  assert.throws(() => require(`gencache/${deep}`), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' });
}

async function main() {
  const imported = {};
  for (const subpath of SUBPATHS) imported[subpath] = await import(`gencache${subpath}`);
  await compare(required, imported);
}

void main();
