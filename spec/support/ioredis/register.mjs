/**
 * Runs what follows on another major version of ioredis: `IOREDIS=5 node --import ./spec/support/ioredis/register.mjs …`.
 * `npm run test:ioredis5` passes it by NODE_OPTIONS, so that child processes do the same.
 */
import { register } from 'node:module';

if (process.env.IOREDIS === '5') register('./resolve.mjs', import.meta.url);
