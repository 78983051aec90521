/**
 * A process that reads one item without a round trip. argv: the URL of Redis, the name of the cache, the heartbeat in ms, and
 * the port to which the connection for pushes leads. A key of Redis, `<name>:row`, stands in for the source.
 *
 * It peeks for most of its time, in turns of 20 ms in which no socket is read. Prints
 *
 *     answered <value> <ms> <value>     the answer until now, when it was given last, and the answer from now on
 *     stopped <value> <value>           if it has not run for a heartbeat within a turn: the next peek, and the next fetch
 *     clock <value>                     the next peek after SIGUSR2 set the wall clock an hour forward, or SIGHUP two hours back
 *
 * with the time by a clock that all processes of the machine share.
 */
import { setImmediate } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { ownClients } from '../support/own-clients.js';

const HOUR_MS = 3_600_000;

const realNow = Date.now.bind(Date);
let aheadMs = 0;
// The library takes the clock that it finds when it is loaded.
Date.now = () => realNow() + aheadMs;
const { GenerationalCache, integer } = await import('../../lib/index.js');
const { redisStore } = await import('../../lib/store/redis/index.js');

const [url, name, heartbeat, pushesPort] = process.argv.slice(2) as [string, string, string, string];
const heartbeatMs = Number(heartbeat);
const source = new Redis(url);
const client = new Redis(url, { lazyConnect: true });
ownClients(client, Number(pushesPort));
const cache = new GenerationalCache({
  ...{ name, store: redisStore(client), ttlMs: 24 * HOUR_MS, readDeadlineMs: 5_000 },
  local: { mode: 'track', maxEntries: 10, heartbeatMs },
});
const items = cache.namespace('item', integer());
const version = items.value('version', { load: async () => Number(await source.get(`${name}:row`)) });
const peek = () => version.peek({ item: 1 });
const fetch = () => version.fetch({ item: 1 });
const nowMs = () => Number(process.hrtime.bigint()) / 1e6;

for (const [signal, byMs] of [
  ['SIGUSR2', HOUR_MS],
  ['SIGHUP', -2 * HOUR_MS],
] as const) {
  process.on(signal, () => {
    aheadMs += byMs;
    console.log('clock', peek());
  });
}

let told: number | undefined;
let answeredAtMs = nowMs();
let ranAtMs = nowMs();
for (;;) {
  const untilMs = nowMs() + 20;
  do {
    const beganAtMs = nowMs();
    const answer = peek();
    if (beganAtMs - ranAtMs > heartbeatMs) console.log('stopped', answer, await fetch());
    if (answer !== told) console.log('answered', told, answeredAtMs, answer);
    told = answer;
    answeredAtMs = ranAtMs = beganAtMs;
    // Peeks of one run may share a reading of the clock.
    await Promise.resolve();
  } while (ranAtMs < untilMs);
  await setImmediate();
  if (peek() === undefined) await fetch();
  ranAtMs = nowMs();
}
