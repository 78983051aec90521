import { clearTimeout, setTimeout } from '../async/scheduling.js';
import { isDeepStrictEqual } from 'node:util';
import { withDeadline } from '../async/deadline.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import { ABSENT, open, seal } from '../codec/envelope.js';
import type { Attributes } from '../telemetry/events.js';
import { withinHardTimeout } from './hard-timeout.js';
import type { LoadCap } from './load-cap.js';
import { load } from './loader.js';
import type { LocalTier } from './local-tier.js';
import type { Hit } from './lookup.js';
import type { Lookups } from './lookups.js';
import type { Source } from '../ports/source.js';
import type { Partitions } from '../ports/partitions.js';
import type { Emitter } from '../telemetry/emitter.js';
import { MicrotaskBatch } from '../async/microtask-batch.js';
import { Vector } from '../model/vector.js';
import { InFlight } from '../async/in-flight.js';

interface VerifyLimits {
  readonly verifyRate: number;
  readonly verifyDelayMs: number;
  readonly verifyDeletes: boolean;
  readonly readDeadlineMs: number;
}

interface VerifierOptions {
  readonly partitions: Partitions;
  readonly lookup: Lookups;
  readonly cap: LoadCap;
  readonly source: Source<object, unknown>;
  readonly telemetry: Emitter;
  readonly options: VerifyLimits;
  /** undefined for a cache without a local tier. */
  readonly local: LocalTier | undefined;
}

/** A hit that was served: its entry, its vector and its bytes. */
export interface Sample {
  readonly address: Address;
  readonly vector: Vector;
  readonly bytes: Buffer;
}

/** Most hits that wait for verification; further hits are not sampled, so that checks never dominate the source's load. */
const SAMPLES_MAX = 1_000;

/**
 * Compares a share of hits with the source, after the answer.
 *
 * A hit may differ because a change was committed and its bump is on its way, which the guarantees allow. So the verifier
 * compares a differing hit again after a delay: an entry that still has the same vector and still differs is stale. It is
 * deleted then, unless the owner wants otherwise.
 * Costs a query for each turn and entry name with samples (for each `loadBatchMax` of them); for differing samples one lookup and one query more.
 */
export class Verifier {
  readonly #partitions: Partitions;
  readonly #lookup: Lookups;
  readonly #cap: LoadCap;
  readonly #source: Source<object, unknown>;
  readonly #telemetry: Emitter;
  readonly #options: VerifyLimits;
  readonly #local: LocalTier | undefined;
  /** The entries of this turn's samples: hits without a round trip may be many of one entry in one turn. */
  readonly #sampled = new Set<string>();
  readonly #turn = new MicrotaskBatch<readonly [Sample, Attributes | undefined]>((samples) => this.#start(samples));
  readonly #delays = new Set<() => void>();
  readonly #work = new InFlight();
  #waiting = 0;
  #closed = false;

  constructor({ partitions, lookup, cap, source, telemetry, options, local }: VerifierOptions) {
    this.#partitions = partitions;
    this.#lookup = lookup;
    this.#cap = cap;
    this.#source = source;
    this.#telemetry = telemetry;
    this.#options = options;
    this.#local = local;
  }

  /** Takes a hit as a sample, with the probability `verifyRate`. */
  consider(address: Address, hit: Hit, attributes: Attributes | undefined): void {
    if (this.#closed || this.#waiting >= SAMPLES_MAX || Math.random() >= this.#options.verifyRate) return;
    // Readers need the room more than a comparison does.
    if (!this.#cap.hasRoom(address.definition)) return;
    const { location, capturedAtMs, bytes } = hit;
    if (this.#sampled.has(location.key)) return;
    this.#sampled.add(location.key);
    this.#waiting++;
    this.#turn.add([{ address, vector: new Vector(address, location, capturedAtMs), bytes }, attributes]);
  }

  /** Resolves when every sample so far has its verdict. */
  settled(): Promise<void> {
    return this.#work.drained(this.#turn);
  }

  /** Stops the verifier. Samples that wait for their second comparison get no verdict. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const wake of this.#delays) wake();
    await this.settled();
  }

  #start(samples: readonly (readonly [Sample, Attributes | undefined])[]): void {
    this.#sampled.clear();
    const groups = new Map<EntryDefinition, { samples: Sample[]; attributes: Attributes | undefined }>();
    for (const [sample, attributes] of samples) {
      const { definition } = sample.address;
      const group = groups.get(definition);
      if (group) group.samples.push(sample);
      else groups.set(definition, { samples: [sample], attributes });
    }
    for (const [definition, group] of groups) {
      const { samples: own, attributes } = group;
      this.#work.track(this.#verify(definition, own, attributes).finally(() => (this.#waiting -= own.length)));
    }
  }

  async #verify(
    definition: EntryDefinition,
    samples: readonly Sample[],
    attributes: Attributes | undefined,
  ): Promise<void> {
    let settled = 0;
    let stale = 0;
    let error: unknown;
    try {
      const differing = await this.#differing(definition, samples, attributes);
      if (differing.length > 0 && (await this.#delay())) {
        const confirmed = await this.#confirm(definition, differing, attributes);
        stale = confirmed.length;
        settled = differing.length - stale;
      }
    } catch (thrown) {
      error = thrown;
    }
    const { cache, namespace, name: entry } = definition;
    this.#telemetry.emit('verify', {
      cache,
      namespace,
      entry,
      attributes,
      verified: error === undefined ? samples.length : 0,
      settled,
      stale,
      error,
    });
  }

  /** Returns the samples whose source holds another value. */
  async #differing(
    definition: EntryDefinition,
    samples: readonly Sample[],
    attributes: Attributes | undefined,
  ): Promise<(Sample & { readonly cached: unknown; readonly loaded: unknown })[]> {
    const addresses = samples.map((sample) => sample.address);
    const telemetry = this.#telemetry;
    const { loadBatchMax } = definition;
    const values: unknown[] = [];
    for (let start = 0; start < addresses.length; start += loadBatchMax) {
      const chunk = addresses.slice(start, start + loadBatchMax);
      const begin = () => {
        const stop = new AbortController();
        const context = () => ({ ...this.#source.context(), signal: stop.signal });
        const loading = load({ definition, addresses: chunk, context, telemetry, purpose: 'verify', attributes });
        return { answer: withinHardTimeout(definition, loading, stop), settled: loading };
      };
      values.push(...(await this.#cap.run(definition, begin)));
    }
    return samples
      .map((sample, i) => ({ ...sample, cached: valueOf(sample), loaded: values[i] }))
      .filter((sample) => !isDeepStrictEqual(sample.cached, sample.loaded) && !sealsAlike(sample, sample.loaded));
  }

  async #confirm(
    definition: EntryDefinition,
    differing: readonly Sample[],
    attributes: Attributes | undefined,
  ): Promise<readonly Sample[]> {
    const looked = await withDeadline('read', this.#options.readDeadlineMs, (deadline) =>
      this.#lookup.read(
        differing.map((sample) => sample.address),
        deadline,
      ),
    );
    const again: Sample[] = [];
    differing.forEach(({ address, vector }, i) => {
      const now = looked[i]!;
      if ((now.outcome === 'hit' || now.outcome === 'absent') && now.location.key === vector.entryKey) {
        again.push({ address, vector, bytes: now.bytes });
      }
    });
    if (again.length === 0) return again;
    const confirmed = await this.#differing(definition, again, attributes);
    const deleted = this.#options.verifyDeletes && confirmed.length > 0 && (await this.#delete(confirmed));
    for (const { address, vector, cached, loaded } of confirmed) {
      const { cache, namespace, name: entry } = definition;
      const shown = { cached: shownValue(cached), loaded: shownValue(loaded) };
      this.#telemetry.emit('staleEntry', {
        cache,
        namespace,
        entry,
        attributes,
        path: address.scope.path,
        vector,
        ...shown,
        deleted,
      });
    }
    return confirmed;
  }

  /** Deletes stale entries, so that their next readers load them. Returns whether the store did. */
  async #delete(stale: readonly Sample[]): Promise<boolean> {
    const located = stale.map(({ address, vector }) => ({ partition: address.scope.partition, key: vector.entryKey }));
    const groups = this.#partitions.group(located);
    const keys = located.map(({ key }) => key);
    try {
      await withDeadline('delete', this.#options.readDeadlineMs, (deadline) =>
        Promise.all(
          groups.map(([{ store }, entries]) =>
            store.delete(
              entries.map(({ key }) => key),
              deadline,
            ),
          ),
        ),
      );
      return true;
    } catch (error) {
      const { cache } = stale[0]!.address.definition;
      this.#telemetry.emit('storeFailure', { cache, operation: 'delete', error: error as Error });
      return false;
    } finally {
      this.#local?.delete(keys);
    }
  }

  /** Waits `verifyDelayMs`. Resolves to false if the cache was closed meanwhile. */
  async #delay(): Promise<boolean> {
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#delays.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, this.#closed ? 0 : this.#options.verifyDelayMs);
      this.#delays.add(wake);
    });
    return !this.#closed;
  }
}

function valueOf({ vector, bytes }: Sample): unknown {
  const opened = open(vector.entryKey, bytes);
  return opened.ok ? opened.value : opened;
}

/** Returns whether the loaded value encodes to the served bytes: some values, an invalid Date for one, do not equal themselves. */
function sealsAlike({ vector, bytes }: Sample, loaded: unknown): boolean {
  const opened = open(vector.entryKey, bytes);
  try {
    return opened.ok && seal(vector.entryKey, loaded, opened.life).equals(bytes);
  } catch {
    return false;
  }
}

function shownValue(value: unknown): unknown {
  return value === ABSENT ? undefined : value;
}
