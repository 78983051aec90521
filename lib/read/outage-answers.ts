import type { Address } from '../model/entry-definition.js';
import type { Generation } from '../model/generation.js';
import type { Clock } from '../ports/clock.js';
import type { LocalTier } from './local-tier.js';
import type { StaleEntry } from './lookup.js';
import type { Lookups } from './lookups.js';
import type { MissingBumps } from './safe-lookup.js';
import type { Sightings } from './sightings.js';
import type { StoreClock } from './store-clock.js';

interface OutageAnswersOptions {
  /** How long after a value was last known to stand it is served, in ms (`staleOnOutageMs`). */
  readonly graceMs: number;
  readonly tier: LocalTier;
  readonly sightings: Pick<Sightings, 'ageMs'>;
  readonly lookup: Pick<Lookups, 'locationOf'>;
  readonly unbumped: MissingBumps;
  readonly clock: Clock;
  /** By partition. */
  readonly storeClocks: readonly StoreClock[];
}

/**
 * Answers reads from the local tier while the store gives no answer (docs/protocol.md, rule 14c).
 *
 * **Invariant.** A value is served only if all generations in its key stood at one moment within the grace, before the end of
 * its TTL, and no change that this process made, or was told of, has ended since; with a bound, only while every change that it
 * does not show is younger than the bound.
 */
export class OutageAnswers {
  readonly #options: OutageAnswersOptions;

  constructor(options: OutageAnswersOptions) {
    this.#options = options;
  }

  /** Returns the value of an address, and how long ago it was last known to stand; undefined if the source must be read. */
  find(address: Address): StaleEntry | undefined {
    const { graceMs, tier, sightings, lookup, unbumped, clock, storeClocks } = this.#options;
    const { scope, scopes } = address;
    if (unbumped.size > 0 && unbumped.includes(scopes)) return undefined;
    const generations: Generation[] = [];
    let staleForMs = 0;
    for (const one of scopes) {
      staleForMs = Math.max(staleForMs, sightings.ageMs(one));
      if (staleForMs > graceMs) return undefined;
      generations.push(one.sighted!);
    }
    const location = lookup.locationOf(address, generations);
    const held = tier.get(location.key);
    if (held === undefined) return undefined;
    const nowMs = clock.nowMs();
    // Other entries' reads show that generations stand for longer than this value's TTL.
    staleForMs = Math.max(staleForMs, storeClocks[scope.partition]!.latestAt(nowMs) - held.freshUntilMs);
    if (staleForMs > graceMs) return undefined;
    return {
      outcome: 'stale',
      ...{ location, capturedAtMs: nowMs, value: held.give(), local: held, staleForMs },
      get bytes() {
        return held.bytes;
      },
    };
  }
}
