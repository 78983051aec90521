import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { open, seal } from '../../lib/codec/envelope.js';
import { SharedValue } from '../../lib/codec/shared-value.js';
import { type EntryKey, entryKey, keyPrefix } from '../../lib/model/key.js';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { LocalTier } from '../../lib/read/local-tier.js';
import { Emitter } from '../../lib/telemetry/emitter.js';
import type { Measure } from '../bench.js';
import { ENVIRONMENT, fiveWorkflows, plainPayload } from '../workload.js';

const ENTRIES = 50_000;
const LIFE = { freshUntilMs: Number.MAX_SAFE_INTEGER, loadMs: 1 };

/** What an entry of the local tier takes beside its value and its key, which the process has anyway. */
export const localMemory: Measure = async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const keys = Array.from({ length: ENTRIES }, keyOf);
  // In this form Redis sends a value, and the decoded one is no part of it.
  const stored = keys.map((key) => seal(key, fiveWorkflows(ENVIRONMENT), LIFE));
  const heldBytes = (hold: () => unknown): number => {
    collect();
    const before = process.memoryUsage().heapUsed;
    const held = hold();
    collect();
    const taken = process.memoryUsage().heapUsed - before;
    if (held === undefined) throw new Error('It is held until here.');
    return taken / ENTRIES;
  };
  const decoded = (index: number) => {
    const opened = open(keys[index]!, stored[index]!);
    if (!opened.ok) throw new Error(opened.message);
    return opened.value;
  };
  const values = heldBytes(() => keys.map((key, i) => SharedValue.of(key, stored[i]!, decoded(i))));
  const tier = new LocalTier({ cache: 'local-memory', telemetry: new Emitter(), limits: { maxEntries: ENTRIES } });
  const entries = heldBytes(() => {
    for (const [i, key] of keys.entries()) tier.enter(key, stored[i]!, decoded(i), LIFE, tier.deletes);
    return tier;
  });
  const ratio = entries / values;
  return [
    {
      name: 'local.memory',
      subject: 'an entry of the local tier',
      baseline: 'its decoded value',
      ratio,
      interval: [ratio, ratio],
      subjectMs: null,
      baselineMs: null,
      commands: null,
      unit: 'bytes',
      subjectBytes: entries,
      baselineBytes: values,
      note:
        `${Math.round(entries - values)} bytes beside its value, of ${plainPayload(ENVIRONMENT).length} bytes as stored; ` +
        `cache.state says ${Math.round(tier.size.bytes / ENTRIES)}`,
    },
  ];
};

function keyOf(_: unknown, index: number): EntryKey {
  const vector = [0, 1, 2].map(() => formatGeneration(0, nonce())).join(',');
  const scopePath = `detector=${index}/environment=${ENVIRONMENT}`;
  const key = entryKey({
    prefix: keyPrefix('local-memory'),
    schemaVersion: 1,
    scopePath,
    entryPath: 'workflows',
    vector,
  });
  // In one piece, as a string that was sent is.
  return Buffer.from(key).toString() as EntryKey;
}
