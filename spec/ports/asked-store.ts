import type { DemandsKey, EntryKey, FreshnessKey, GenerationKey, MarkKey } from '../../lib/model/key.js';
import { demandsKey, entryKey, freshnessKey, generationKey, keyPrefix, markKey } from '../../lib/model/key.js';
import { parseDemands } from '../../lib/model/bound-demands.js';
import { withDeadline } from '../../lib/async/deadline.js';
import { formatGeneration, type Generation, nonce } from '../../lib/model/generation.js';
import type { FillBatch, Store } from '../../lib/index.js';
import type { Claim, ClaimBatch, FillReply, Renewal, Repair, StorePartition } from '../../lib/ports/store.js';

const LIMIT_MS = 10_000;

/** The mark of a spec's repair, unless the spec gives another. */
export const MARK = 'mark of a spec';

/** A store whose calls have a deadline of their own, with keys that no other spec uses. */
export class AskedStore<Asked extends StorePartition = Store> {
  readonly store: Asked;
  /** Every key made here, for `elapse`. */
  readonly keys: string[] = [];
  readonly #prefix: string;
  readonly #limitMs: number;
  #made = 0;

  constructor(store: Asked, name: string, limitMs = LIMIT_MS, prefix = keyPrefix(name)) {
    this.store = store;
    this.#prefix = prefix;
    this.#limitMs = limitMs;
  }

  generationKey(): GenerationKey {
    const key = generationKey(this.#prefix, `item=${this.#made++}`);
    this.keys.push(key);
    return key;
  }

  entryKey(): EntryKey {
    const key = entryKey({
      prefix: this.#prefix,
      schemaVersion: 1,
      scopePath: `item=${this.#made++}`,
      entryPath: 'value',
      vector: formatGeneration(0, nonce()),
    });
    this.keys.push(key);
    return key;
  }

  /** The freshness key of a bound; the same key at each call. */
  freshnessKey(boundMs: number): FreshnessKey {
    const key = freshnessKey(this.#prefix, boundMs);
    if (!this.keys.includes(key)) this.keys.push(key);
    return key;
  }

  get markKey(): MarkKey {
    const key = markKey(this.#prefix);
    if (!this.keys.includes(key)) this.keys.push(key);
    return key;
  }

  read(...keys: (GenerationKey | EntryKey | FreshnessKey)[]) {
    return this.#ask('read', (deadline) => this.store.read(keys, deadline));
  }

  /** The value of a key, as text. */
  async text(key: GenerationKey | EntryKey | FreshnessKey): Promise<string | undefined> {
    return (await this.read(key))[0]?.toString('latin1');
  }

  mint(keys: readonly GenerationKey[], token: Generation = formatGeneration(0, nonce()), ttlMs = 60_000) {
    return this.#ask('mint', (deadline) => this.store.mint(keys, token, ttlMs, deadline));
  }

  /** A generation that stands, with its key. */
  async minted(ttlMs = 60_000): Promise<{ key: GenerationKey; token: Generation }> {
    const key = this.generationKey();
    const [token] = await this.mint([key], undefined, ttlMs);
    return { key, token: token as Generation };
  }

  bump(keys: readonly GenerationKey[], attempt = nonce(), ttlMs = 60_000) {
    return this.#ask('bump', (deadline) => this.store.bump(keys, attempt, ttlMs, deadline));
  }

  async fill(guards: FillBatch['guards'], ...entries: FillBatch['entries'][number][]): Promise<readonly FillReply[]> {
    return (await this.fillBatch({ guards, entries })).replies;
  }

  /** TTLs count from now unless the batch says otherwise. */
  fillBatch(batch: Partial<FillBatch>) {
    return this.#ask('fill', (deadline) =>
      this.store.fill(
        { ...{ guards: [], entries: [], asOfMs: Number.MAX_SAFE_INTEGER, lease: undefined }, ...batch },
        deadline,
      ),
    );
  }

  /** Claims as a holder with this token does; looks only without one. */
  async claim(
    guards: ClaimBatch['guards'],
    entries: ClaimBatch['entries'],
    token: string | undefined = nonce(),
    ttlMs = 10_000,
  ): Promise<readonly Claim[]> {
    return (await this.#ask('claim', (deadline) => this.store.claim({ guards, entries, token, ttlMs }, deadline)))
      .claims;
  }

  renewLeases(keys: readonly EntryKey[], token: string, ttlMs: number) {
    return this.#ask('claim', (deadline) => this.store.renewLeases(keys, token, ttlMs, deadline));
  }

  failLeases(keys: readonly EntryKey[], token: string) {
    return this.#ask('claim', (deadline) => this.store.failLeases(keys, token, deadline));
  }

  /** Puts bytes under any key, which no part of the library would. */
  async plant(
    key: GenerationKey | EntryKey | FreshnessKey | MarkKey | DemandsKey,
    bytes: Buffer | string,
    ttlMs = 60_000,
  ): Promise<void> {
    await this.fill([], { key: key as string as EntryKey, bytes: Buffer.from(bytes), ttlMs, guards: [] });
  }

  quarantine(keys: readonly GenerationKey[], token = nonce(), ttlMs = 30_000) {
    return this.#ask('quarantine', (deadline) => this.store.quarantine(keys, token, ttlMs, deadline));
  }

  lift(keys: readonly GenerationKey[], token: string, attempt = nonce(), ttlMs = 60_000) {
    return this.#ask('lift', (deadline) => this.store.lift(keys, token, attempt, ttlMs, deadline));
  }

  /** Waits until the store is connected: this call waits for a server that is down, a read does not. */
  async connected(): Promise<void> {
    await this.timeMs();
  }

  timeMs() {
    return this.#ask('time', (deadline) => this.store.timeMs(deadline));
  }

  renew(renewal: Pick<Renewal, 'keys'> & Partial<Renewal>) {
    return this.#ask('renew', (deadline) =>
      this.store.renew(
        {
          markKey: this.markKey,
          mark: MARK,
          incarnation: this.store.incarnation!,
          asOfMs: 0,
          nonce: nonce(),
          ...renewal,
        },
        deadline,
      ),
    );
  }

  repair(repair: Partial<Repair> = {}) {
    const { markKey } = this;
    return this.#ask('repair', (deadline) =>
      this.store.repair(
        {
          ...{ globalKey: generationKey(this.#prefix, ''), markKey, mark: MARK },
          ...{ incarnation: this.store.incarnation!, attempt: nonce(), ttlMs: 60_000 },
          ...repair,
        },
        deadline,
      ),
    );
  }

  get demandsKey(): DemandsKey {
    const key = demandsKey(this.#prefix);
    if (!this.keys.includes(key)) this.keys.push(key);
    return key;
  }

  demand(boundMs: number) {
    const { demandsKey, markKey } = this;
    return this.#ask('demand', (deadline) => this.store.demand!({ demandsKey, markKey, boundMs }, deadline));
  }

  /** The demands that stand, as the doctor reads them. */
  async demands() {
    return parseDemands((await this.text(this.demandsKey as string as EntryKey)) ?? '');
  }

  freshness(key: FreshnessKey) {
    return this.#ask('freshness', (deadline) => this.store.freshness!(key, deadline));
  }

  readMark() {
    return this.#ask('readMark', (deadline) => this.store.readMark(this.markKey, deadline));
  }

  delete(...keys: EntryKey[]) {
    return this.#ask('delete', (deadline) => this.store.delete(keys, deadline));
  }

  /** Takes a generation away as an eviction does. */
  async evict(key: GenerationKey | FreshnessKey | MarkKey): Promise<void> {
    await this.delete(key as string as EntryKey);
  }

  #ask<T>(operation: string, work: Parameters<typeof withDeadline<T>>[2]): Promise<T> {
    return withDeadline(operation, this.#limitMs, work);
  }
}
