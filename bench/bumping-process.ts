/**
 * A process of an application that writes: the program of `track.latency`. It answers with the instant at which it began.
 */
import { connect, threeLevels } from './workload.js';
import { instantMs, obeyOrders } from './other-process.js';

export type WritingOrder =
  | { readonly open: { readonly redisUrl: string; readonly cache: string } }
  | { readonly bump: { readonly detector: number; readonly environment: number } }
  | { readonly set: { readonly key: string; readonly value: string } };

async function open({ redisUrl, cache }: { redisUrl: string; cache: string }) {
  return { environments: threeLevels(redisUrl, cache).environments, redis: await connect(redisUrl) };
}

let opened: Awaited<ReturnType<typeof open>> | undefined;

obeyOrders(async (order: WritingOrder) => {
  if ('open' in order) {
    opened = await open(order.open);
    return null;
  }
  const sinceMs = instantMs();
  if ('bump' in order) await opened!.environments.bump(order.bump);
  else await opened!.redis.set(order.set.key, order.set.value);
  return sinceMs;
});
