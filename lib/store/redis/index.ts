/** `gencache/redis`: the store on Redis. Loads ioredis. */
export { type ClusterStoreOptions, redisStore } from './redis-store.js';
