import { expect } from 'chai';
import type { Redis } from 'ioredis';
import sinon from 'sinon';
import { type FreshnessKey, type GenerationKey, keyPrefix } from '../../lib/model/key.js';
import type { Beat, TrackingListener } from '../../lib/ports/store.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { AskedStore } from '../ports/asked-store.js';
import { eventually } from './deferred.js';
import { lend } from './lenders.js';
import { lendRedis, uniqueName } from './redis.js';

/** What a listener was told. */
export type Told =
  | { readonly kind: 'changed'; readonly keys: readonly GenerationKey[] }
  | { readonly kind: 'reset'; readonly incarnation: string | undefined }
  | { readonly kind: 'beat'; readonly beat: Beat }
  | { readonly kind: 'refused'; readonly error: Error };

export interface LendTrackerOptions {
  readonly beatEveryMs?: number;
  readonly boundMs?: number;
  /** Hears everything too. */
  readonly listener?: TrackingListener;
}

/** A store on this server that tells a listener of changes; closed after the spec. */
export function lendTracker(url: string, { beatEveryMs = 30, boundMs, listener }: LendTrackerOptions = {}) {
  const client = lendRedis({ url, lazyConnect: true });
  const duplicate = sinon.spy(client, 'duplicate');
  const store = redisStore(client);
  lend({ what: 'the store', close: () => store.close() });
  const name = uniqueName();
  const asked = new AskedStore(store, name);
  const told: Told[] = [];
  const heard: TrackingListener = {
    changed: (keys) => {
      told.push({ kind: 'changed', keys });
      listener?.changed(keys);
    },
    reset: (incarnation) => {
      told.push({ kind: 'reset', incarnation });
      listener?.reset(incarnation);
    },
    beat: (beat) => {
      told.push({ kind: 'beat', beat });
      listener?.beat(beat);
    },
    refused: (error) => {
      told.push({ kind: 'refused', error });
      listener?.refused(error);
    },
  };
  const freshnessKey: FreshnessKey | undefined = boundMs === undefined ? undefined : asked.freshnessKey(boundMs);
  const tracking = store.track!({ prefix: keyPrefix(name), beatEveryMs, freshnessKey }, heard);
  lend({ what: 'the tracking', close: () => tracking.close() });
  const count = (kind: Told['kind']) => told.filter((one) => one.kind === kind).length;
  return {
    ...{ store, asked, name, told, tracking, count, key: asked.generationKey() },
    /** The client of the tracking connection. */
    get trackingClient(): Redis {
      return duplicate.secondCall.returnValue;
    },
    /** Resolves after this many further beats. */
    async beats(further = 1): Promise<void> {
      const before = count('beat');
      await eventually(() => expect(count('beat')).to.be.at.least(before + further));
    },
    /** The keys of which changes were told. */
    changes: () => told.flatMap((one) => (one.kind === 'changed' ? one.keys : [])),
    errors: () => told.flatMap((one) => (one.kind === 'refused' ? [one.error.message] : [])),
  };
}
