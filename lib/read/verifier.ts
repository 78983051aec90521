import { isDeepStrictEqual } from 'node:util';
import { withDeadline } from '../async/deadline.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import { ABSENT, open, seal } from '../codec/envelope.js';
import type { Attributes } from '../telemetry/events.js';
import { load } from './loader.js';
import type { Hit, Lookup } from './lookup.js';
import type { Source } from '../ports/source.js';
import type { Emitter } from '../telemetry/emitter.js';
import { MicrotaskBatch } from '../async/microtask-batch.js';
import { Vector } from '../model/vector.js';
import { InFlight } from '../async/in-flight.js';

interface VerifyLimits {
  readonly verifyRate: number;
  readonly verifyDelayMs: number;
  readonly readDeadlineMs: number;
}

interface VerifierOptions {
  readonly lookup: Lookup;
  readonly source: Source<unknown, unknown>;
  readonly telemetry: Emitter;
  readonly options: VerifyLimits;
}

/** A hit, as it was served. */
export interface Sample {
  readonly address: Address;
  readonly vector: Vector;
  readonly bytes: Buffer;
}

/** Hits waiting to be verified beyond this many are not sampled: checking must not become the load. */
const SAMPLES_MAX = 1_000;

/**
 * Compares a share of hits with the source, behind the answer.
 *
 * A hit may differ because a change was committed and its bump is on its way, which the guarantees allow. So a
 * difference is looked at again after a delay: still the same vector and still different is a stale entry. Costs a
 * query for each turn and entry name with samples; for those that differ one lookup and one query more.
 */
export class Verifier {
  readonly #lookup: Lookup;
  readonly #source: Source<unknown, unknown>;
  readonly #telemetry: Emitter;
  readonly #options: VerifyLimits;
  readonly #turn = new MicrotaskBatch<readonly [Sample, Attributes | undefined]>((samples) => this.#start(samples));
  readonly #delays = new Set<() => void>();
  readonly #work = new InFlight();
  #waiting = 0;
  #closed = false;

  constructor({ lookup, source, telemetry, options }: VerifierOptions) {
    this.#lookup = lookup;
    this.#source = source;
    this.#telemetry = telemetry;
    this.#options = options;
  }

  /** Takes a hit as a sample, at the rate set. */
  consider(address: Address, { location, capturedAtMs, bytes }: Hit, attributes: Attributes | undefined): void {
    if (this.#closed || this.#waiting >= SAMPLES_MAX || Math.random() >= this.#options.verifyRate) return;
    this.#waiting++;
    this.#turn.add([{ address, vector: new Vector(address, location, capturedAtMs), bytes }, attributes]);
  }

  /** Resolves when every sample taken so far has been judged. */
  settled(): Promise<void> {
    return this.#work.drained(this.#turn);
  }

  /** Stops: what waits for its second look is left unjudged. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const wake of this.#delays) wake();
    await this.settled();
  }

  #start(samples: readonly (readonly [Sample, Attributes | undefined])[]): void {
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
    const { cache, name: entry } = definition;
    this.#telemetry.emit('verify', {
      cache,
      entry,
      attributes,
      verified: error === undefined ? samples.length : 0,
      settled,
      stale,
      error,
    });
  }

  /** The samples whose source says something else. */
  async #differing(
    definition: EntryDefinition,
    samples: readonly Sample[],
    attributes: Attributes | undefined,
  ): Promise<(Sample & { readonly cached: unknown; readonly loaded: unknown })[]> {
    const addresses = samples.map((sample) => sample.address);
    const values = await load(definition, addresses, this.#source.context(), this.#telemetry, 'verify', attributes);
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
    for (const { address, vector, cached, loaded } of confirmed) {
      const { cache, name: entry } = definition;
      const shown = { cached: shownValue(cached), loaded: shownValue(loaded) };
      this.#telemetry.emit('staleEntry', { cache, entry, attributes, path: address.scope.path, vector, ...shown });
    }
    return confirmed;
  }

  /** Waits `verifyDelayMs`; false if the cache was closed meanwhile. */
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

/** Whether the loaded value has the very bytes that were served: an invalid Date, for one, does not equal itself. */
function sealsAlike({ vector, bytes }: Sample, loaded: unknown): boolean {
  try {
    return seal(vector.entryKey, loaded).equals(bytes);
  } catch {
    return false;
  }
}

function shownValue(value: unknown): unknown {
  return value === ABSENT ? undefined : value;
}
