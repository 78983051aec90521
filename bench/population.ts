/**
 * Very many live entries, in exactly the stored form: keys, generations and envelopes are made by the library's own
 * functions, and sent in pipelines, which is some times faster than loading and filling them.
 */
import { connect } from 'node:net';
import { Redis } from 'ioredis';
import { seal } from '../lib/codec/envelope.js';
import { type Generation, formatGeneration, nonce } from '../lib/model/generation.js';
import { childPath, entryKey, generationKey, keyPrefix } from '../lib/model/key.js';
import { generationTtl } from '../lib/model/ttl.js';
import { fiveWorkflows, plainPayload, TTL_MS } from './workload.js';

export interface Population {
  readonly url: string;
  /** The cache's name. */
  readonly name: string;
  readonly detectors: number;
  readonly environments: number;
  readonly entries: number;
  readonly generations: number;
  /** Of the global scope. */
  readonly root: { readonly key: string; readonly token: Generation };
  /** What INFO says one more of each takes, key and expiry included. */
  readonly bytesPerEntry: number;
  readonly bytesPerGeneration: number;
  /** The same value under a plain key, with an expiry. */
  readonly bytesPerPlain: number;
  /** Of the value alone, as encoded. */
  readonly bytesOfPayload: number;
}

const BATCH = 1_000;
const SCHEMA_VERSION = 1;

/** Fills an otherwise empty Redis: each of `detectors` with entries in each of the environments 1 to `environments`. */
export async function populate(
  url: string,
  name: string,
  detectors: number,
  environments: number,
  progress: (share: number) => void = () => {},
): Promise<Population> {
  const redis = new Redis(url);
  const send = sender(url);
  const prefix = keyPrefix(name);
  const ttlMs = generationTtl(TTL_MS);
  const entries = detectors * environments;
  const mint = async (path: string): Promise<Generation> => {
    const token = formatGeneration(0, nonce());
    await send.set(generationKey(prefix, path), token, ttlMs);
    return token;
  };
  const keyOf = ({ path, vector }: { path: string; vector: string }) =>
    entryKey({ prefix, schemaVersion: SCHEMA_VERSION, scopePath: path, entryPath: 'workflows', vector });
  try {
    const empty = await usedMemory(redis);
    const root = { key: generationKey(prefix, ''), token: await mint('') };
    const scopes: { path: string; vector: string }[] = [];
    for (let detector = 1; detector <= detectors; detector++) {
      const parent = childPath('', 'detector', `${detector}`);
      const above = `${root.token},${await mint(parent)}`;
      for (let environment = 1; environment <= environments; environment++) {
        const path = childPath(parent, 'environment', `${environment}`);
        scopes.push({ path, vector: `${above},${await mint(path)}` });
      }
      if (detector % 100 === 0) progress((0.3 * detector) / detectors);
    }
    await send.flush();
    const generations = 1 + detectors + entries;
    const withGenerations = await usedMemory(redis);

    const value = fiveWorkflows(7);
    for (let index = 0; index < entries; index++) {
      const key = keyOf(scopes[index]!);
      await send.set(key, seal(key, value).toString('latin1'), TTL_MS);
      if (index % 10_000 === 0) progress(0.3 + (0.7 * index) / entries);
    }
    await send.flush();
    const withEntries = await usedMemory(redis);

    // What a plain key takes less, as Redis tells it of one of each: another million would make its tables grow.
    const payload = plainPayload(7);
    const plain = `plain:${scopes[0]!.path}`;
    await redis.set(plain, payload, 'PX', TTL_MS);
    const less = (await redis.memory('USAGE', keyOf(scopes[0]!)))! - (await redis.memory('USAGE', plain))!;
    await redis.del(plain);
    const bytesPerEntry = (withEntries - withGenerations) / entries;
    return {
      url,
      name,
      detectors,
      environments,
      entries,
      generations,
      root,
      bytesPerGeneration: (withGenerations - empty) / generations,
      bytesPerEntry,
      bytesPerPlain: bytesPerEntry - less,
      bytesOfPayload: payload.length,
    };
  } finally {
    redis.disconnect();
    send.end();
  }
}

/** Sends commands as they go over the wire: a tenth of what a client takes for each. */
function sender(url: string) {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname).setNoDelay();
  let fail: (error: Error) => void = () => {};
  let hear: (reply: Buffer) => void = () => {};
  socket.on('error', (error) => fail(error)).on('data', (reply) => hear(reply));
  let batch = '';
  let commands = 0;
  let replyBytes = 0;
  const flush = async () => {
    let due = replyBytes;
    if (due === 0) return;
    const answered = new Promise<void>((resolve, reject) => {
      fail = reject;
      hear = (reply) => {
        due -= reply.length;
        if (reply.includes('-')) reject(new Error(`Redis refused what the benchmark stores: ${reply.toString()}`));
        else if (due <= 0) resolve();
      };
    });
    socket.write(batch, 'latin1');
    batch = '';
    commands = replyBytes = 0;
    await answered;
  };
  const send = (reply: string, args: readonly string[]) => {
    batch += `*${args.length}\r\n`;
    for (const arg of args) batch += `$${arg.length}\r\n${arg}\r\n`;
    replyBytes += reply.length;
    return ++commands < BATCH ? undefined : flush();
  };
  return {
    flush,
    /** Keys and values of bytes as Latin-1 has them. */
    set: (key: string, value: string, ttlMs: number) => send('+OK\r\n', ['SET', key, value, 'PX', `${ttlMs}`]),
    end: () => socket.destroy(),
  };
}

/** What Redis has allocated, in bytes. */
export async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))![1]);
}
