import { createRequire } from 'node:module';
import { join } from 'node:path';
import { expect } from 'chai';
import { Redis } from 'ioredis';

const require = createRequire(join(process.cwd(), 'package.json'));

describe('a run on ioredis 5 or 6', () => {
  it('loads the version that IOREDIS names', () => {
    const wanted = process.env['IOREDIS'] === '5' ? 'ioredis-5' : 'ioredis/built/index.js';
    expect(Redis).to.equal((require(wanted) as { Redis: typeof Redis }).Redis);
  });
});
