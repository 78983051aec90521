import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { LIBRARY_VERSION } from '../../lib/model/library-version.js';

it('the version that a cache publishes is that of package.json', () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  expect(LIBRARY_VERSION).to.equal(version);
});
