/**
 * The rights of the Redis user in docs/roles-and-schemas.md: with them every operation of a store works, and without any
 * single one the operation that its table names fails.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { redisStore } from '../../../lib/store/redis/index.js';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { freshnessKey, keyPrefix } from '../../../lib/model/key.js';
import { AskedStore } from '../../ports/asked-store.js';
import { lend } from '../../support/lenders.js';
import { lendRedis, privateRedis } from '../../support/redis.js';
import { rejection } from '../../support/rejection.js';

const DOCUMENT = readFileSync(join(import.meta.dirname, '../../../docs/roles-and-schemas.md'), 'utf8');
const SECTION = DOCUMENT.slice(DOCUMENT.indexOf('## The user of Redis'), DOCUMENT.indexOf('## An outbox in a schema'));
/** Of the block: `+mget +get ...`. */
const GRANTED = /const commands = '([^']+)'/
  .exec(SECTION)![1]!
  .split(' ')
  .map((right) => right.slice(1));
/** Of the table: the first column. */
const TABLE = [...SECTION.matchAll(/^\| `([^`]+)`/gm)].map(([, right]) => right!);

const CACHE = 'shop';
const REFUSED = /NOPERM|no permissions|can't run this command|can't access|cannot access/i;
const BOUND_MS = 10_000;

/** An operation that needs one right. `prepare` runs with all of them. */
interface Need {
  readonly prepare?: (asked: AskedStore) => Promise<void>;
  readonly operation: (asked: AskedStore) => Promise<unknown>;
}

const foreign = async (asked: AskedStore) => {
  const key = asked.generationKey();
  await asked.plant(key, 'foreign');
  return key;
};
const fill = async (asked: AskedStore, guardTtlMs = 60_000) => {
  const { key, token } = await asked.minted();
  await asked.fill([{ key, token, ttlMs: guardTtlMs }], {
    ...{ key: asked.entryKey(), bytes: Buffer.from('value'), ttlMs: 60_000, guards: [0] },
  });
};
const renew = async (asked: AskedStore) => {
  const untilMs = (await asked.timeMs()) + BOUND_MS / 2;
  return asked.renew({ keys: [{ key: asked.freshnessKey(BOUND_MS), untilMs }] });
};
const quarantined = async (asked: AskedStore) => {
  const { key } = await asked.minted();
  await asked.quarantine([key]);
  return key;
};

const COMMANDS: Readonly<Record<string, Need>> = {
  mget: { operation: (asked) => asked.read(asked.entryKey()) },
  get: { operation: (asked) => asked.readMark() },
  set: { operation: (asked) => asked.minted() },
  del: { operation: (asked) => asked.bump([asked.generationKey()]) },
  unlink: { operation: (asked) => asked.delete(asked.entryKey()) },
  type: { operation: (asked) => fill(asked) },
  pttl: { operation: async (asked) => asked.bump([(await asked.minted()).key]) },
  pexpire: { operation: (asked) => fill(asked, 200_000) },
  pexpireat: { operation: async (asked) => asked.bump([await quarantined(asked)]) },
  time: { operation: (asked) => asked.timeMs() },
  info: { operation: (asked) => asked.repair() },
  eval: { operation: (asked) => asked.minted() },
  evalsha: { prepare: async (asked) => void (await asked.minted()), operation: (asked) => asked.minted() },
};

const KEYS: Readonly<Record<string, Need>> = {
  'g:*': { operation: (asked) => asked.minted() },
  'e:*': { operation: (asked) => asked.read(asked.entryKey()) },
  'l:*': { operation: (asked) => asked.claim([], [{ key: asked.entryKey(), guards: [] }]) },
  'f:*': { prepare: (asked) => asked.timeMs().then(() => asked.repair()), operation: renew },
  m: { operation: (asked) => asked.repair() },
  d: { operation: (asked) => asked.demand(BOUND_MS) },
};

describe('the user of Redis in docs/roles-and-schemas.md', () => {
  let admin: Redis;
  let url: string;

  before(async () => {
    const server = await privateRedis({ for: 'suite' });
    url = server.url.replace('redis://', 'redis://shop:secret@');
    admin = lendRedis({ url: server.url, for: 'suite' });
  });

  const allow = (commands: readonly string[], keys: readonly string[]) =>
    admin.call(
      ...(['acl', 'setuser', 'shop', 'reset', 'on', '>secret'] as const),
      ...keys.map((key) => `~${keyPrefix(CACHE)}${key}`),
      ...commands.map((command) => `+${command}`),
    );
  const lendStore = () => {
    const store = redisStore(lendRedis({ url, lazyConnect: true }));
    lend({ what: 'the store', close: () => store.close() });
    return new AskedStore(store, CACHE);
  };
  const withAll = async () => {
    await admin.flushall();
    await allow(GRANTED, ['*']);
    return lendStore();
  };

  it('has the commands of the table, and a spec each', () => {
    expect([...GRANTED].sort()).to.deep.equal(Object.keys(COMMANDS).sort());
    expect([...TABLE].sort()).to.deep.equal([...Object.keys(COMMANDS), ...Object.keys(KEYS)].sort());
  });

  it('needs no other command for any operation of a store', async () => {
    const asked = await withAll();
    for (const { prepare, operation } of [...Object.values(COMMANDS), ...Object.values(KEYS)]) {
      await prepare?.(asked);
      await operation(asked);
    }
    const key = await quarantined(asked);
    expect(await asked.lift([key], nonce())).to.deep.equal(['lapsed']);
    expect(await asked.lift([await foreign(asked)], nonce())).to.deep.equal(['lapsed']);
    await asked.bump([await foreign(asked)]);
    const refused = (await admin.call('acl', 'log')) as unknown[][];
    const objects = refused.map((fields) => fields[fields.indexOf('object') + 1]);
    // From Redis 7.2 on, and to Valkey, ioredis tells its name at each connection. It goes on when that is refused.
    expect(objects.filter((object) => object !== 'client|setinfo')).to.deep.equal([]);
  });

  for (const [command, { prepare, operation }] of Object.entries(COMMANDS)) {
    it(`needs ${command}`, async () => {
      const asked = await withAll();
      await prepare?.(asked);
      const without = GRANTED.filter((granted) => granted !== command);
      await asked.timeMs(); // connected
      await allow(without, ['*']);
      const error = await rejection(operation(asked));
      expect(error.message).to.match(REFUSED);
    });
  }

  for (const [pattern, { prepare, operation }] of Object.entries(KEYS)) {
    it(`needs the keys ${pattern}`, async () => {
      const asked = await withAll();
      await prepare?.(asked);
      await asked.timeMs();
      await allow(
        GRANTED,
        Object.keys(KEYS).filter((granted) => granted !== pattern),
      );
      const error = await rejection(operation(asked));
      expect(error.message).to.match(REFUSED);
    });
  }

  it('may have the keys of the table alone', async () => {
    const asked = await withAll();
    await allow(GRANTED, Object.keys(KEYS));
    for (const { operation } of [...Object.values(COMMANDS), ...Object.values(KEYS)]) await operation(asked);
    expect(await asked.text(freshnessKey(keyPrefix(CACHE), BOUND_MS))).to.not.equal(undefined);
    expect(await asked.mint([asked.generationKey()], formatGeneration(0, nonce()))).to.have.length(1);
  });
});
