import { Deadline } from '../async/deadline.js';
import { setImmediate } from '../async/scheduling.js';
import type { GencacheError } from '../errors/errors.js';
import { StoreUnavailableError } from '../ports/store.js';
import type { Address } from '../model/entry-definition.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { Breakers, LookupBreaker } from './breakers.js';
import type { LayoutRegistration } from './layout-registration.js';
import type { LookupResult } from './lookup.js';
import type { Lookups, LookupShare } from './lookups.js';

interface SafeLookupOptions {
  readonly lookup: Lookups;
  readonly breakers: Breakers;
  /** Whether the store never holds anything. */
  readonly bypassed: boolean;
  readonly unbumped: MissingBumps;
  /** undefined for a store without partitions, and for a source without a registry. */
  readonly registration: LayoutRegistration | undefined;
  readonly telemetry: Emitter;
  readonly readDeadlineMs: number;
}

/** The scopes whose bump by this process failed. */
export interface MissingBumps {
  readonly size: number;
  includes(scopes: Address['scopes']): boolean;
}

/**
 * Looks up, and never rejects: where the store must not be asked, or fails, every entry is a bypass. Of a cache with
 * several partitions, a partition that fails makes bypasses of its own entries alone.
 */
export class SafeLookup {
  readonly #lookup: Lookups;
  readonly #breakers: Breakers;
  readonly #bypassed: boolean;
  readonly #unbumped: MissingBumps;
  readonly #registration: LayoutRegistration | undefined;
  readonly #telemetry: Emitter;
  readonly #readDeadlineMs: number;

  constructor({ lookup, breakers, bypassed, unbumped, registration, telemetry, readDeadlineMs }: SafeLookupOptions) {
    this.#lookup = lookup;
    this.#breakers = breakers;
    this.#bypassed = bypassed;
    this.#unbumped = unbumped;
    this.#registration = registration;
    this.#telemetry = telemetry;
    this.#readDeadlineMs = readDeadlineMs;
  }

  /** Looks up `addresses: [n] -> [n]` under one deadline for all its commands. */
  read(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    if (this.#bypassed) return Promise.resolve(addresses.map(() => BYPASS_STORE));
    if (this.#registration !== undefined && !this.#registration.stands) return this.#registerFirst(addresses);
    return this.#read(addresses);
  }

  async #registerFirst(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    return (await this.#registration!.within(this.#readDeadlineMs))
      ? this.#read(addresses)
      : addresses.map(() => UNREGISTERED);
  }

  #read(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    // Before the lookup: a bump that succeeds meanwhile does not make an earlier reply new.
    return this.#unbumped.size > 0 ? this.#readBumped(addresses) : this.#ask(addresses);
  }

  /** Looks up the entries that miss no bump of this process. */
  async #readBumped(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    const bumped = addresses.filter(({ scopes }) => !this.#unbumped.includes(scopes));
    const looked = new Map<Address, LookupResult>();
    if (bumped.length > 0) {
      const results = await this.#ask(bumped);
      for (const [i, address] of bumped.entries()) looked.set(address, results[i]!);
    }
    return addresses.map((address) => looked.get(address) ?? UNBUMPED);
  }

  #ask(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    const { only } = this.#lookup;
    return only === undefined ? this.#askShares(addresses) : this.#askOne(only, this.#breakers.of(0), addresses);
  }

  async #askShares(addresses: readonly Address[]): Promise<readonly LookupResult[]> {
    const shares = this.#lookup.shares(addresses);
    if (shares.length === 1) return this.#askShare(shares[0]!);
    const results: LookupResult[] = [];
    const asking = shares.map(async (share) => {
      const looked = await this.#askShare(share);
      for (const [i, position] of share.positions.entries()) results[position] = looked[i]!;
    });
    await Promise.all(asking);
    return results;
  }

  #askShare({ lookup, partitions, addresses }: LookupShare): Promise<readonly LookupResult[]> {
    const breakers = this.#breakers;
    const breaker = partitions.length === 1 ? breakers.of(partitions[0]!) : breakers.together(partitions);
    return this.#askOne(lookup, breaker, addresses);
  }

  async #askOne(
    lookup: LookupShare['lookup'],
    breaker: LookupBreaker,
    addresses: readonly Address[],
  ): Promise<readonly LookupResult[]> {
    if (!breaker.admits()) {
      // A caller that reads again without a pause lets the event loop go on, and the connection come back.
      await new Promise(setImmediate);
      return addresses.map(() => BREAKER_OPEN);
    }
    const deadline = new Deadline('read', this.#readDeadlineMs);
    try {
      const looked = await lookup.read(addresses, deadline);
      breaker.succeeded();
      return looked;
    } catch (error) {
      const { cache } = addresses[0]!.definition;
      this.#telemetry.emit('storeFailure', { cache, operation: 'read', error: error as GencacheError });
      breaker.failed(error as GencacheError);
      const refused = error instanceof StoreUnavailableError && !error.isOutage;
      return addresses.map(() => (refused ? REFUSED : UNREACHED));
    } finally {
      deadline.clear();
    }
  }
}

/** Compared by identity: the store failed a whole lookup, not only its second command. */
const UNREACHED: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
/** As `UNREACHED`, by a server that answered, while the store is there. */
const REFUSED: LookupResult = { outcome: 'bypass', reason: 'store_failure' };
const BREAKER_OPEN: LookupResult = { outcome: 'bypass', reason: 'breaker_open' };
const UNBUMPED: LookupResult = { outcome: 'bypass', reason: 'unbumped' };
const UNREGISTERED: LookupResult = { outcome: 'bypass', reason: 'unregistered' };
const BYPASS_STORE: LookupResult = { outcome: 'bypass', reason: 'bypass_store' };

/** Whether the store failed a whole lookup. */
export function isUnreached(result: LookupResult): boolean {
  return isUnanswered(result) || result === REFUSED;
}

/** Whether the store gave no answer to a whole lookup. */
export function isUnanswered(result: LookupResult): boolean {
  return result === UNREACHED || result === BREAKER_OPEN;
}
