import type { Clock } from '../ports/clock.js';
import { withDeadline } from '../async/deadline.js';
import type { Breaker } from './breaker.js';
import type { Address, EntryDefinition } from '../model/entry-definition.js';
import { ABSENT, type Life, seal, UNSTORABLE } from '../codec/envelope.js';
import {
  type GencacheError,
  OversizedValueError,
  SchemaMismatchError,
  UnencodableValueError,
} from '../errors/errors.js';
import type { Attributes, FillEvent, RefusalReason } from '../telemetry/events.js';
import { mismatch } from '../codec/schema.js';
import type { FillBatch, StorePartition } from '../ports/store.js';
import type { Emitter } from '../telemetry/emitter.js';
import { jittered } from '../model/ttl.js';
import { Guards } from './guards.js';
import type { LocalTier } from './local-tier.js';
import type { StoreClock } from './store-clock.js';
import { Vector } from '../model/vector.js';

/** The stored form of a value, and the vector that it will be stored under. */
export interface Sealed {
  readonly vector: Vector;
  readonly bytes: Buffer;
  /** What `bytes` say of the value's age, if they do. */
  readonly life?: Life | undefined;
  /** Time from the capture of the vector until the entry leaves the store, in ms. */
  readonly storedMs: number;
  /** The stored fact that the value can't be stored, which counts as no fill. */
  readonly isMarker?: true;
}

interface FillResult {
  /** Number of stored entries. */
  readonly filled: number;
  /** Whether the store has answered for each entry, and so has released its lease. */
  readonly isSettled: boolean;
}

const FOREIGN_ENTRY =
  'The key of an entry must hold a string, but holds another type. The key stays as it is, and every read loads the ' +
  'entry. Find the program that writes this key; delete the key if no program needs it.';

interface FillLimits {
  readonly ttlJitter: number;
  readonly maxValueBytes: number;
  readonly fillDeadlineMs: number;
}

/** What fills one partition. */
export interface FilledPartition {
  readonly store: StorePartition;
  readonly storeClock: StoreClock;
  readonly breaker: Breaker;
}

interface FillerOptions {
  readonly partitions: readonly FilledPartition[];
  readonly telemetry: Emitter;
  readonly clock: Clock;
  readonly options: FillLimits;
  /** undefined for a cache without a local tier. */
  readonly local: LocalTier | undefined;
}

/** Most entries of one fill command, and about the most bytes. */
const FILL_ENTRIES_MAX = 500;
const FILL_BYTES_MAX = 1 << 20;

/**
 * Stores loaded values under the vectors their lookups returned.
 *
 * Fills are safe without the check of the generations: an entry whose generation moved since its lookup lies under a vector
 * that no reader asks for any more (docs/protocol.md, rule 1). The check avoids that orphan, and counts the refused fill.
 * A process may die between load and fill: the next reader loads again.
 */
export class Filler {
  readonly #partitions: readonly FilledPartition[];
  readonly #telemetry: Emitter;
  readonly #clock: Clock;
  readonly #options: FillLimits;
  readonly #local: LocalTier | undefined;

  constructor({ partitions, telemetry, clock, options, local }: FillerOptions) {
    this.#partitions = partitions;
    this.#telemetry = telemetry;
    this.#clock = clock;
    this.#options = options;
    this.#local = local;
  }

  /**
   * Returns the stored form of a value. The reader seals a value before its caller gets it, since the caller may change
   * it. `loadMs`: the duration of its load. Throws SchemaMismatchError, UnencodableValueError and OversizedValueError.
   */
  async seal(vector: Vector, value: unknown, loadMs: number): Promise<Sealed> {
    const address = Vector.addressOf(vector);
    const { schema, ttlMs, graceMs, hasLife } = address.definition;
    const issue = schema && value !== ABSENT ? await mismatch(schema, value) : undefined;
    if (issue !== undefined) throw new SchemaMismatchError(issue);
    const { maxValueBytes, ttlJitter } = this.#options;
    const freshMs = jittered(ttlMs, ttlJitter);
    const storeMs = hasLife ? this.#partitionOf(vector).storeClock.at(vector.capturedAtMs) : undefined;
    const life = storeMs === undefined ? undefined : { freshUntilMs: storeMs + freshMs, loadMs };
    const bytes = seal(vector.entryKey, value, life);
    if (bytes.length > maxValueBytes) throw oversized(address, bytes.length, maxValueBytes);
    // A value that tells no age is fresh for as long as it is stored.
    return { vector, bytes, life, storedMs: storeMs === undefined ? freshMs : freshMs + graceMs };
  }

  /** Returns what is stored in place of a value that was refused, so that no process waits for its load. */
  static marker(vector: Vector): Sealed {
    const { ttlMs: storedMs } = Vector.addressOf(vector).definition;
    return { vector, bytes: seal(vector.entryKey, UNSTORABLE), storedMs, isMarker: true };
  }

  /** Emits the refused fill of a value that the caller gets and the store does not. */
  refuse(address: Address, reason: RefusalReason, attributes: Attributes | undefined, error?: Error): void {
    this.#emit(address.definition, attributes, 0, { [reason]: 1 }, error);
  }

  /** Returns the reason of a refusal by `seal`. Throws any other error. */
  static reasonOf(error: unknown): RefusalReason {
    if (error instanceof UnencodableValueError) return 'unencodable';
    if (error instanceof OversizedValueError) return 'oversized';
    if (error instanceof SchemaMismatchError) return 'schema';
    throw error;
  }

  /**
   * Stores `sealed: [n]`, all of one definition. Costs one command for each 500 entries or 1 MiB of a partition; one more for
   * the first fill of a process that knows the partition's time from no claim. `lease` is the token of the entries' leases, which the same
   * commands release. Never rejects: a store failure is counted and refuses the fill.
   */
  async fill(sealed: readonly Sealed[], attributes: Attributes | undefined, lease?: string): Promise<FillResult> {
    if (this.#partitions.length === 1) return this.#fillPartition(this.#partitions[0]!, sealed, attributes, lease);
    const shares = new Map<FilledPartition, Sealed[]>();
    for (const item of sealed) {
      const partition = this.#partitionOf(item.vector);
      const share = shares.get(partition);
      if (share === undefined) shares.set(partition, [item]);
      else share.push(item);
    }
    const filling = [...shares].map(([partition, share]) => this.#fillPartition(partition, share, attributes, lease));
    const results = await Promise.all(filling);
    return {
      filled: results.reduce((sum, result) => sum + result.filled, 0),
      isSettled: results.every((result) => result.isSettled),
    };
  }

  #partitionOf(vector: Vector): FilledPartition {
    return this.#partitions[Vector.addressOf(vector).scope.partition]!;
  }

  async #fillPartition(
    partition: FilledPartition,
    sealed: readonly Sealed[],
    attributes: Attributes | undefined,
    lease: string | undefined,
  ): Promise<FillResult> {
    let filled = 0;
    let isSettled = true;
    for (const chunk of chunks(sealed)) {
      const result = await this.#fillChunk(partition, chunk, attributes, lease);
      filled += result.filled;
      isSettled &&= result.isSettled;
    }
    return { filled, isSettled };
  }

  async #fillChunk(
    { store, storeClock, breaker }: FilledPartition,
    chunk: readonly Sealed[],
    attributes: Attributes | undefined,
    lease: string | undefined,
  ): Promise<FillResult> {
    const nowMs = this.#clock.nowMs();
    const guards = new Guards();
    const entries: FillBatch['entries'][number][] = [];
    const counted: boolean[] = [];
    const sent: Sealed[] = [];
    const local = this.#local;
    const deletes = local?.deletes;
    for (const item of chunk) {
      const { vector, bytes, storedMs, isMarker } = item;
      const address = Vector.addressOf(vector);
      const ttlMs = storedMs - Math.ceil(nowMs - vector.capturedAtMs);
      if (ttlMs < 1) {
        if (!isMarker) this.refuse(address, 'expired', attributes);
        continue;
      }
      entries.push({ key: vector.entryKey, bytes, ttlMs, guards: guards.add(vector) });
      counted.push(!isMarker);
      sent.push(item);
    }
    if (entries.length === 0) return { filled: 0, isSettled: false };
    const { definition } = Vector.addressOf(chunk[0]!.vector);
    const unfilled = (reason: RefusalReason): FillResult => {
      const refused = counted.filter(Boolean).length;
      if (refused > 0) this.#emit(definition, attributes, 0, { [reason]: refused });
      return { filled: 0, isSettled: false };
    };
    if (!breaker.admits()) return unfilled('breaker_open');
    try {
      const { replies, timeMs } = await withDeadline('fill', this.#options.fillDeadlineMs, async (deadline) => {
        await storeClock.known(deadline);
        const asOfMs = Math.floor(storeClock.at(nowMs)!);
        return store.fill({ guards: guards.list, entries, asOfMs, lease }, deadline);
      });
      storeClock.note(timeMs, nowMs);
      breaker.succeeded();
      let filled = 0;
      const reasons: Partial<Record<RefusalReason, number>> = {};
      for (const [i, reply] of replies.entries()) {
        if (reply === 'filled') keepLocally(local, sent[i]!, deletes!);
        if (!counted[i]) continue;
        if (reply === 'filled') filled++;
        else reasons[reply] = (reasons[reply] ?? 0) + 1;
      }
      if (counted.includes(true)) {
        this.#emit(definition, attributes, filled, reasons, reasons.foreign ? new Error(FOREIGN_ENTRY) : undefined);
      }
      return { filled, isSettled: entries.length === chunk.length };
    } catch (error) {
      const { cache } = definition;
      this.#telemetry.emit('storeFailure', { cache, operation: 'fill', error: error as GencacheError });
      breaker.failed(error as GencacheError);
      return unfilled('store_failure');
    }
  }

  #emit(
    { cache, namespace, name: entry }: EntryDefinition,
    attributes: Attributes | undefined,
    fills: number,
    refusalReasons: FillEvent['refusalReasons'],
    error?: Error,
  ): void {
    const refused = Object.values(refusalReasons).reduce((sum, count) => sum + count, 0);
    this.#telemetry.emit('fill', { cache, namespace, entry, attributes, fills, refused, refusalReasons, error });
  }
}

/** Lets the local tier have what the store has by now. */
function keepLocally(local: LocalTier | undefined, { vector, bytes, life, isMarker }: Sealed, deletes: number): void {
  if (life !== undefined) local?.filled(vector.entryKey, bytes, life, deletes);
  else if (isMarker) local?.drop(vector.entryKey);
}

function* chunks(sealed: readonly Sealed[]): Generator<readonly Sealed[]> {
  let chunk: Sealed[] = [];
  let bytes = 0;
  for (const item of sealed) {
    if (chunk.length > 0 && (chunk.length === FILL_ENTRIES_MAX || bytes + item.bytes.length > FILL_BYTES_MAX)) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(item);
    bytes += item.bytes.length;
  }
  if (chunk.length > 0) yield chunk;
}

function oversized(address: Address, bytes: number, maxValueBytes: number): OversizedValueError {
  return new OversizedValueError(
    bytes,
    maxValueBytes,
    `An encoded value must have at most ${maxValueBytes} bytes (maxValueBytes), but got ${bytes} ` +
      `(entry "${address.definition.name}" at ${address.scope.path || 'global'}). ` +
      'Cache less of it, split it by a key, or raise maxValueBytes.',
  );
}
