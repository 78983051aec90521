/**
 * Runs a program and its children on another major version of ioredis: IOREDIS=5, and this file in NODE_OPTIONS, as
 * `npm run test:ioredis5` has it. `import` and `require` both resolve `ioredis` to the package `ioredis-5`.
 */
import Module, { register } from 'node:module';

if (process.env.IOREDIS === '5') {
  register('./resolve.mjs', import.meta.url);
  const resolve = Module._resolveFilename;
  Module._resolveFilename = function (request, ...rest) {
    return resolve.call(this, request === 'ioredis' ? 'ioredis-5' : request, ...rest);
  };
}
