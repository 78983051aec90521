/**
 * The steps of the ladder (docs/guarantees.md): what an installation on each has, how it changes an item, and what
 * readers may not get from then on.
 *
 * On each step with an outbox there is one promise more, which the installation notes by itself: an event goes away only
 * after its bump, so a version whose change has no event left is the oldest that any reader may get.
 */
import type { Knex } from 'knex';
import { BumpError } from '../../lib/index.js';
import { QuarantineError } from '../../lib/knex/index.js';
import type { Installation } from './installation.js';

export interface LadderStep {
  /** Whether there is an outbox, and a relay. */
  readonly hasOutbox: boolean;
  /** Whether triggers record the changes. */
  readonly hasTriggers: boolean;
  readonly boundMs?: number;
  /** Changes an item, and adds what is promised after it. Rejects where Redis takes no write, and the step needs one. */
  change(installation: Installation, item: number): Promise<void>;
}

/** Shorter than an outage. */
const BOUND_MS = 500;

export const LADDER: Readonly<Record<string, LadderStep>> = {
  'step 1, bump by hand': {
    hasOutbox: false,
    hasTriggers: false,
    async change({ db, writing, reading, refused }, item) {
      const version = await raise(db, item);
      const error = await writing.items.bump({ item }).catch((thrown: unknown) => thrown);
      // Also after a bump that failed: its process bypasses the scope until one has succeeded.
      writing.promises.add(item, version, 'the end of the bump');
      if (error === undefined) reading.promises.add(item, version, 'the bump');
      else if (error instanceof BumpError) refused(error);
      else throw error;
    },
  },
  'step 2, transaction with the outbox': {
    hasOutbox: true,
    hasTriggers: false,
    async change({ writing, reading, refused }, item) {
      const { value, bump, error } = await writing.cache.transaction(async (trx) => {
        await writing.items.bump({ item }, { trx });
        return raise(trx, item);
      });
      writing.promises.add(item, value, `a transaction (${bump})`);
      if (bump === 'done') reading.promises.add(item, value, 'a transaction (done)');
      else refused(error);
    },
  },
  'step 3, triggers': {
    hasOutbox: true,
    hasTriggers: true,
    async change({ db }, item) {
      await raise(db, item);
    },
  },
  'step 4a, a bound': {
    hasOutbox: true,
    hasTriggers: true,
    boundMs: BOUND_MS,
    async change({ db, both }, item) {
      const version = await raise(db, item);
      const fromMs = performance.now() + BOUND_MS;
      for (const { promises } of both) promises.add(item, version, 'the end of the bound', fromMs);
    },
  },
  'step 4b, strict commits': {
    hasOutbox: true,
    hasTriggers: true,
    async change({ writing, both, reading, refused, seenAtMs }, item) {
      const committed = await writing.cache
        .transaction((trx) => raise(trx, item), { strict: true })
        .catch((error: unknown) => {
          if (!(error instanceof QuarantineError)) throw error;
          refused(error);
        });
      if (committed === undefined) return; // nothing is committed
      const { value, bump, strict, error } = committed;
      writing.promises.add(item, value, `a strict commit (${strict}, ${bump})`);
      if (bump === 'done') reading.promises.add(item, value, `a strict commit (${strict}, ${bump})`);
      else refused(error);
      if (strict !== 'kept') return;
      for (const { promises } of both) promises.add(item, value, 'sight of a strict commit', seenAtMs(item, value));
    },
  },
};

/** Gives an item its next version. */
async function raise(db: Knex, item: number): Promise<number> {
  const [row] = await db('item')
    .where({ id: item })
    .update({ version: db.raw('version + 1') })
    .returning<{ version: number }[]>('version');
  return row!.version;
}
