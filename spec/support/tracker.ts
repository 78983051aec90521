import { expect } from 'chai';
import { Cluster, type Redis } from 'ioredis';
import sinon from 'sinon';
import { type FreshnessKey, type GenerationKey, keyPrefix } from '../../lib/model/key.js';
import type { Beat, StorePartition, TrackingListener } from '../../lib/ports/store.js';
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
  /** Where the tracking connection leads, if not to `url`. */
  readonly pushesPort?: number;
  /** Hears everything too. */
  readonly listener?: TrackingListener;
}

/** A store on this server, or in one slot of this cluster, that tells a listener of changes; closed after the spec. */
export function lendTracker(
  place: string | Cluster,
  { beatEveryMs = 30, boundMs, listener, pushesPort }: LendTrackerOptions = {},
) {
  const name = uniqueName();
  const client = place instanceof Cluster ? undefined : lendRedis({ url: place, lazyConnect: true });
  const duplicate = client && sinon.spy(client, 'duplicate');
  const whole = place instanceof Cluster ? redisStore(place, { partitions: 1 }) : redisStore(client!);
  const store: StorePartition = 'partition' in whole ? whole.partition(keyPrefix(name)) : whole;
  lend({ what: 'the store', close: () => whole.close() });
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
  // Each connection takes the options of the moment in which it opens.
  if (pushesPort !== undefined) client!.options.port = pushesPort;
  const tracking = store.track!({ prefix: keyPrefix(name), beatEveryMs, freshnessKey }, heard);
  lend({ what: 'the tracking', close: () => tracking.close() });
  const count = (kind: Told['kind']) => told.filter((one) => one.kind === kind).length;
  return {
    ...{ client: client!, whole, store, asked, name, told, tracking, count, key: asked.generationKey() },
    /** The client of the tracking connection. */
    get trackingClient(): Redis {
      return duplicate!.secondCall.returnValue;
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
