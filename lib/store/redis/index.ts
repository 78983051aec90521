/** `gencache/redis`: the store on Redis. Loads ioredis. */
export { redisStore } from './redis-store.js';
