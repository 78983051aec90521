import { clearTimeout, monotonicMs, setTimeout } from '../async/scheduling.js';
import { withDeadline } from '../async/deadline.js';
import { nonce } from '../model/generation.js';
import { topmost } from '../model/path.js';
import { generationTtl } from '../model/ttl.js';
import type { Partition, Partitions } from '../ports/partitions.js';
import { StoreUnavailableError } from '../ports/store.js';
import { chunksOfKeys, type KeysChunk } from './bump-paths.js';
import { type BumpServers, bumpScopes } from './bump-scopes.js';

export interface QuarantineOptions {
  /** As in BumpTarget. */
  readonly present: () => Promise<Partitions>;
  readonly cache: string;
  /** Deadline of each command, in ms. */
  readonly deadlineMs: number;
  /** How long the quarantine lasts without a renewal, in ms. */
  readonly lastsMs: number;
  /** Longest time that setting it, or renewing it, may take, in ms. */
  readonly setWithinMs: number;
  /** Called with the paths at whose keys a bump found, and deleted, foreign values. */
  readonly onForeign: (paths: readonly string[]) => void;
}

/**
 * The quarantine of one writer (docs/protocol.md, rule 12): its token stands in the generation of every scope that the
 * writer is about to change.
 *
 *     none -> standing (renewed) -> lifted
 *                  \-> left to lapse
 *
 * **Invariant.** From the end of `set` until the lift, no reader finds a generation there; after the lift, readers find
 * fresh generations only. Eviction, a flush, or a store that is out of reach breaks this. The lift or a renewal notices,
 * and `kept` is false from then on.
 */
export class Quarantine {
  readonly #options: QuarantineOptions;
  readonly #token = nonce();
  #paths: readonly string[] = [];
  #renewal: NodeJS.Timeout | undefined;
  #kept = true;
  /** Where it was set. */
  #partitions: Partitions | undefined;
  /** Whether the store may have carried out a quarantine, with a reply or without one. */
  #sent = false;

  constructor(options: QuarantineOptions) {
    this.#options = options;
  }

  /** Whether the quarantine stood throughout, as far as renewals and the lift could tell. */
  get kept(): boolean {
    return this.#kept;
  }

  /** Sets the quarantine on these scopes, and begins to renew it. One command for each 1,000 scopes. Rejects as the store does. */
  async set(paths: readonly string[]): Promise<void> {
    if (paths.length === 0) return;
    const startedAtMs = monotonicMs();
    this.#partitions = await this.#options.present();
    this.#paths = paths;
    try {
      await this.#send(() => {});
    } catch (error) {
      // Where no quarantine stands, a lift would only wait once more for a store that is away.
      if (!this.#sent) this.#paths = [];
      throw error;
    }
    // This process was suspended in between: the first of its tokens may have lapsed.
    const { setWithinMs } = this.#options;
    if (monotonicMs() - startedAtMs > setWithinMs) {
      throw new Error(`The store took longer than ${setWithinMs} ms.`);
    }
    this.#renewLater();
  }

  /**
   * Lifts the quarantine, which gives every scope under it a fresh generation, and bumps those of `paths` that it did not
   * cover, or did not cover in a layout that was registered since. One command for each 1,000 scopes. Returns the servers that
   * carried out all of it. Rejects as the store and the registry do, or with BumpError.
   */
  async lift(paths: readonly string[]): Promise<BumpServers> {
    this.stop();
    const { present, cache, deadlineMs, onForeign } = this.#options;
    const servers = new Map<Partition, string | undefined>();
    const carriedOut = (partition: Partition, server: string | undefined) =>
      servers.set(partition, servers.has(partition) && servers.get(partition) !== server ? undefined : server);
    await this.#each(async ({ partition, keys }) => {
      const replies = await withDeadline('lift', deadlineMs, (deadline) =>
        partition.store.lift(keys, this.#token, nonce(), generationTtl(0), deadline),
      );
      carriedOut(partition, partition.store.incarnation);
      if (replies.includes('lapsed')) this.#kept = false;
    });
    const quarantined = new Set(this.#paths);
    const covering = new Set(topmost(new Set([...quarantined, ...paths])));
    const beyond = paths.filter((path) => !quarantined.has(path) && covering.has(path));
    const partitions = await present();
    const scopes = [
      ...partitions.locate(beyond),
      ...partitions.locate(this.#paths).filter(({ partition }) => this.#isNew(partitions.list[partition]!)),
    ];
    if (scopes.length > 0) {
      // Another transaction linked more to the changed rows, or a process registered, and it committed in between.
      this.#kept = false;
      const bumped = await bumpScopes({
        ...{ partitions, scopes, level: cache, deadlineMs, onForeign },
        ...{ ttlMs: 0, afterFailure: 'stop' },
      });
      for (const [partition, server] of bumped) carriedOut(partition, server);
    }
    return servers;
  }

  #isNew(partition: Partition): boolean {
    return this.#partitions?.list.includes(partition) !== true;
  }

  /** Stops the renewals. A quarantine without a lift lapses. */
  stop(): void {
    clearTimeout(this.#renewal);
    this.#renewal = undefined;
  }

  /** `replied`: called after each command, with whether the token stood in all of its scopes before. */
  async #send(replied: (stoodBefore: boolean) => void): Promise<void> {
    const { deadlineMs, lastsMs, setWithinMs } = this.#options;
    await this.#each(async ({ partition, keys }) => {
      const stood = await withDeadline('quarantine', Math.min(deadlineMs, setWithinMs), (deadline) =>
        partition.store.quarantine(keys, this.#token, lastsMs, deadline),
      ).catch((error: unknown) => {
        if (!isUnsent(error)) this.#sent = true;
        throw error;
      });
      this.#sent = true;
      replied(stood === keys.length);
    });
  }

  /**
   * Sends a command for each chunk of the scopes: those of a partition one after another until one fails, the partitions
   * at the same time. Rejects with the first failure, once all commands have ended.
   */
  async #each(send: (chunk: KeysChunk) => Promise<void>): Promise<void> {
    const byPartition = new Map<Partition, KeysChunk[]>();
    if (this.#partitions === undefined) return;
    for (const chunk of chunksOfKeys(this.#partitions, this.#paths)) {
      const chunks = byPartition.get(chunk.partition);
      if (chunks === undefined) byPartition.set(chunk.partition, [chunk]);
      else chunks.push(chunk);
    }
    const sending = [...byPartition.values()].map(async (chunks) => {
      for (const chunk of chunks) await send(chunk).finally(() => chunk.partition.changed?.(chunk.keys));
    });
    for (const sent of await Promise.allSettled(sending)) if (sent.status === 'rejected') throw sent.reason;
  }

  /** Four renewals in the time that the quarantine lasts, so that it survives a late one or two. */
  #renewLater(): void {
    const timer = setTimeout(() => {
      const renewing = this.#send((stoodBefore) => {
        // A token was evicted or had lapsed: readers may have filled in between.
        if (!stoodBefore) this.#kept = false;
      });
      const next = () => this.#renewal === timer && this.#renewLater();
      renewing.then(
        next,
        // The quarantine lasts for several renewals, and the lift tells whether it did, so a failure is tried again. But
        // a command that was carried out without a reply may have put back a token that was evicted, after fills: the
        // lift could not see that.
        (error: unknown) => {
          if (!isUnsent(error)) this.#kept = false;
          next();
        },
      );
    }, this.#options.lastsMs / 4);
    this.#renewal = timer;
  }
}

/** Whether the store certainly has not carried out the command that failed so. */
function isUnsent(error: unknown): boolean {
  return error instanceof StoreUnavailableError && !error.sent;
}
