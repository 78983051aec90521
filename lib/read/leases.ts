/**
 * Leases: one load of an entry and vector, whatever the number of processes (docs/protocol.md, rules 21 to 21c).
 *
 *     claim -> yours: load, renew meanwhile -> fill and release, in one step
 *           |                               -> failed: the others load without a lease
 *           -> held: wait, look again, look up as soon as it changed (lease-waiters.ts)
 *
 * A lease spares loads and makes nothing exact: a load without one is as right. So wherever the store can't be asked, or
 * does not answer, the load goes on without a lease. A holder that dies costs the others the lease's TTL.
 */
import { withDeadline } from '../async/deadline.js';
import type { InFlight } from '../async/in-flight.js';
import { clearInterval, monotonicMs, setInterval } from '../async/scheduling.js';
import type { EntryKey } from '../model/key.js';
import { nonce } from '../model/generation.js';
import type { Claim, StorePartition } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';
import type { BatchSlot } from './batch-slot.js';
import type { Breaker } from './breaker.js';
import { Guards } from './guards.js';
import type { StoreClock } from './store-clock.js';

/** What leases the entries of one partition. */
export interface LeasedPartition {
  readonly store: StorePartition;
  readonly storeClock: StoreClock;
  /** Asked whether it is open, and never told: a store that is full refuses fills and answers claims. */
  readonly breaker: Pick<Breaker, 'isOpen'>;
}

interface LeasesOptions {
  readonly partitions: readonly LeasedPartition[];
  readonly telemetry: Emitter;
  readonly options: { readonly leaseTtlMs: number; readonly readDeadlineMs: number };
  /** Counts commands under way. */
  readonly work: InFlight;
}

/** `unanswered`: the store gave no answer, so the entry is loaded without a lease. */
export type LeaseClaim = Claim | 'unanswered';

/** Most entries of one claim command. */
const CLAIM_ENTRIES_MAX = 500;
/** Renewals within the TTL of a lease. */
const RENEWALS_PER_TTL = 3;

export class Leases {
  readonly #partitions: readonly LeasedPartition[];
  readonly #telemetry: Emitter;
  readonly #options: LeasesOptions['options'];
  readonly #work: InFlight;
  /** The entries whose leases this process holds. */
  readonly #own = new Set<EntryKey>();

  constructor({ partitions, telemetry, options, work }: LeasesOptions) {
    this.#partitions = partitions;
    this.#telemetry = telemetry;
    this.#options = options;
    this.#work = work;
  }

  /**
   * Takes the leases of slots that have missed: `slots: [n] -> [n]`. Costs one command for each 500 of a partition. Never rejects.
   */
  async claim(slots: readonly BatchSlot[]): Promise<LeaseClaim[]> {
    const token = nonce();
    const claims = await this.#ask(slots, token);
    for (const [i, claim] of claims.entries()) {
      if (claim !== 'yours') continue;
      slots[i]!.lease = token;
      this.#own.add(slots[i]!.vector!.entryKey);
    }
    return claims;
  }

  /** Whether this process holds the lease of a slot's entry: a further load here does not wait for the first one. */
  isOwn({ vector }: BatchSlot): boolean {
    return vector !== undefined && this.#own.has(vector.entryKey);
  }

  /** Forgets the leases of slots, which their fill has released, or which lapse. */
  end(slots: readonly BatchSlot[]): void {
    for (const slot of slots) {
      if (slot.lease !== undefined) this.#own.delete(slot.vector!.entryKey);
      slot.lease = undefined;
    }
  }

  /** Looks without taking. */
  look(slots: readonly BatchSlot[]): Promise<LeaseClaim[]> {
    return this.#ask(slots, undefined);
  }

  /** Renews the leases of slots until their load has ended, or has taken longer than the soft timeout. */
  renewUntil(loaded: Promise<unknown>, slots: readonly BatchSlot[]): void {
    const held = slots.filter(({ lease }) => lease !== undefined);
    if (held.length === 0) return;
    const { leaseTtlMs } = this.#options;
    const { loadSoftTimeoutMs } = held[0]!.address.definition;
    const endsAtMs = monotonicMs() + loadSoftTimeoutMs;
    const renewal = setInterval(() => {
      if (monotonicMs() >= endsAtMs) clearInterval(renewal);
      else this.#send(held, (store, keys, token, deadline) => store.renewLeases(keys, token, leaseTtlMs, deadline));
    }, leaseTtlMs / RENEWALS_PER_TTL).unref();
    const end = () => clearInterval(renewal);
    loaded.then(end, end);
  }

  /** Tells the other processes that the load of these slots failed, or can't be stored: they wait for it no longer. */
  fail(slots: readonly BatchSlot[]): void {
    this.#send(slots, (store, keys, token, deadline) => store.failLeases(keys, token, deadline));
    this.end(slots);
  }

  async #ask(slots: readonly BatchSlot[], token: string | undefined): Promise<LeaseClaim[]> {
    if (this.#partitions.length === 1) return this.#askPartition(this.#partitions[0]!, slots, token);
    const claims: LeaseClaim[] = [];
    const shares = new Map<number, { slots: BatchSlot[]; positions: number[] }>();
    for (const [position, slot] of slots.entries()) {
      const { partition } = slot.address.scope;
      let share = shares.get(partition);
      if (share === undefined) shares.set(partition, (share = { slots: [], positions: [] }));
      share.slots.push(slot);
      share.positions.push(position);
    }
    const asking = [...shares].map(async ([partition, share]) => {
      const answered = await this.#askPartition(this.#partitions[partition]!, share.slots, token);
      for (const [i, position] of share.positions.entries()) claims[position] = answered[i]!;
    });
    await Promise.all(asking);
    return claims;
  }

  async #askPartition(
    partition: LeasedPartition,
    slots: readonly BatchSlot[],
    token: string | undefined,
  ): Promise<LeaseClaim[]> {
    const claims: LeaseClaim[] = [];
    let answers = !partition.breaker.isOpen;
    for (let start = 0; start < slots.length; start += CLAIM_ENTRIES_MAX) {
      const chunk = slots.slice(start, start + CLAIM_ENTRIES_MAX);
      // After one missed deadline the rest skips the store, so that a load waits for one deadline only.
      const claimed = answers ? await this.#askOnce(partition, chunk, token) : undefined;
      answers = claimed !== undefined;
      claims.push(...(claimed ?? chunk.map(() => 'unanswered' as const)));
    }
    return claims;
  }

  /** Returns undefined if the store gave no answer. */
  async #askOnce(
    { store, storeClock }: LeasedPartition,
    slots: readonly BatchSlot[],
    token: string | undefined,
  ): Promise<readonly Claim[] | undefined> {
    const guards = new Guards();
    const entries = slots.map(({ missed }) => {
      const { vector, replaced } = missed!;
      return { key: vector.entryKey, guards: guards.add(vector), replaced };
    });
    const { readDeadlineMs, leaseTtlMs: ttlMs } = this.#options;
    const sentAtMs = storeClock.ownMs;
    try {
      const { claims, timeMs } = await withDeadline('claim', readDeadlineMs, (deadline) =>
        store.claim({ guards: guards.list, entries, token, ttlMs }, deadline),
      );
      storeClock.note(timeMs, sentAtMs);
      return claims;
    } catch (error) {
      this.#failed(slots, error as Error);
      return undefined;
    }
  }

  /** Sends a command for the leases that this process holds. */
  #send(slots: readonly BatchSlot[], command: LeaseCommand): void {
    // By partition and token.
    const shares = new Map<string, { store: StorePartition; token: string; keys: EntryKey[] }>();
    for (const { lease, vector, address } of slots) {
      if (lease === undefined) continue;
      const { partition } = address.scope;
      const id = `${partition} ${lease}`;
      const share = shares.get(id);
      if (share) share.keys.push(vector!.entryKey);
      else shares.set(id, { store: this.#partitions[partition]!.store, token: lease, keys: [vector!.entryKey] });
    }
    for (const { store, token, keys } of shares.values()) {
      const sending = withDeadline('lease', this.#options.readDeadlineMs, (deadline) =>
        command(store, keys, token, deadline),
      );
      this.#work.track(sending.catch((error: unknown) => this.#failed(slots, error as Error)));
    }
  }

  #failed(slots: readonly BatchSlot[], error: Error): void {
    this.#telemetry.emit('storeFailure', { cache: slots[0]!.address.definition.cache, operation: 'lease', error });
  }
}

type LeaseCommand = (
  store: StorePartition,
  keys: readonly EntryKey[],
  token: string,
  deadline: Parameters<StorePartition['failLeases']>[2],
) => Promise<void>;
