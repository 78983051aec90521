/**
 * A process that tracks one generation. argv: the URL of Redis, the name of the cache, the heartbeat in ms.
 *
 * It asks for most of its time, in turns of 20 ms, whether the generation is verified. Prints `verified <generation>` at each
 * change of that; and if it has not run for a heartbeat within such a turn, `stopped` and `verified` or `unverified`, by what
 * the next question answers, before it reads a socket.
 */
import { setImmediate } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { withDeadline } from '../../lib/async/deadline.js';
import { type Generation, generationState } from '../../lib/model/generation.js';
import { keyPrefix } from '../../lib/model/key.js';
import { ScopeRegistry } from '../../lib/model/scope-registry.js';
import { isVerified, TrackedGenerations } from '../../lib/read/tracked-generations.js';
import { redisStore } from '../../lib/store/redis/index.js';

const [url, name, heartbeat] = process.argv.slice(2) as [string, string, string];
const heartbeatMs = Number(heartbeat);
const store = redisStore(new Redis(url, { lazyConnect: true }));
const tracked = new TrackedGenerations({ store, heartbeatMs, refused: (error) => console.log(error.message) });
store.track!({ prefix: keyPrefix(name), beatEveryMs: heartbeatMs / 10 }, tracked);
const registry = new ScopeRegistry([keyPrefix(name)], 10);
const scopes = [registry.remember(registry.root, 'item', 1, 'item=1')];
const [scope] = scopes;

let told = '';
let ranAtMs = performance.now();
for (;;) {
  const generation = scope!.tracked?.verified;
  const untilMs = performance.now() + 20;
  do {
    const nowMs = performance.now();
    const isHeld = generation !== undefined && isVerified(scopes, [generation]);
    if (nowMs - ranAtMs > heartbeatMs) console.log('stopped', isHeld ? 'verified' : 'unverified');
    else if (isHeld && told !== generation) console.log('verified', (told = generation));
    ranAtMs = nowMs;
  } while (ranAtMs < untilMs);
  await setImmediate();
  ranAtMs = performance.now();
  if (scope!.tracked?.verified !== undefined) continue;
  const asked = tracked.ask(scopes);
  const [reply] = await withDeadline('read', 5_000, (deadline) => store.read([scope!.generationKey], deadline));
  if (reply != null) tracked.reply(asked, scopes, [generationState(String(reply)) as Generation]);
  ranAtMs = performance.now();
}
