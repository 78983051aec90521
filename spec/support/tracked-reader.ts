import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';
import type { Cluster, Redis } from 'ioredis';
import {
  formatGeneration,
  type Generation,
  type GenerationState,
  generationState,
  nonce,
} from '../../lib/model/generation.js';
import { keyPrefix } from '../../lib/model/key.js';
import { type RegisteredScope, ScopeRegistry } from '../../lib/model/scope-registry.js';
import { isVerified, TrackedGenerations } from '../../lib/read/tracked-generations.js';
import { eventually } from './deferred.js';
import { lend } from './lenders.js';
import { HEARTBEAT_MS, TrackedProcess } from './tracked-process.js';
import { lendTracker, type LendTrackerOptions } from './tracker.js';

const SCOPES = 4;

/**
 * A process that reads generations that are not verified, and asks without a pause which of them are verified. Beside it a writer,
 * on a connection of its own, that knows since when each generation is old.
 */
export class TrackedReader extends TrackedProcess {
  /** How often a generation was verified. */
  tracked = 0;
  readonly #lent: ReturnType<typeof lendTracker>;
  readonly #generations: TrackedGenerations;
  readonly #scopes: readonly RegisteredScope[];
  readonly #writer: () => Redis | Cluster;
  /** The generations that the scopes ever had, and the instant from which on each one is old. */
  readonly #old = new Map<Generation, number>();
  #isEnding = false;

  /** `writer`: the client on which the spec changes generations. */
  constructor(
    place: Parameters<typeof lendTracker>[0],
    writer: () => Redis | Cluster,
    options: LendTrackerOptions = {},
  ) {
    super();
    this.#writer = writer;
    this.#lent = lendTracker(place, {
      ...options,
      listener: {
        changed: (keys) => this.#generations.changed(keys),
        reset: (incarnation) => this.#generations.reset(incarnation),
        beat: (beat) => this.#generations.beat(beat),
        refused: () => {},
      },
    });
    this.#generations = new TrackedGenerations({
      ...{ store: this.#lent.store, heartbeatMs: HEARTBEAT_MS, refused: () => {} },
    });
    const registry = new ScopeRegistry([keyPrefix(this.#lent.name)], 100);
    this.#scopes = Array.from({ length: SCOPES }, (_, id) =>
      registry.remember(registry.root, 'item', id, `item=${id}`),
    );
    const running = Promise.all([this.#read(), this.#check()]);
    lend({
      what: 'the reader',
      close: async () => {
        this.#isEnding = true;
        await running;
      },
    });
  }

  get lent() {
    return this.#lent;
  }

  get keys(): string[] {
    return this.#scopes.map(({ generationKey }) => generationKey);
  }

  /** Gives each scope another generation, as a bump by another process does. */
  async bumpAll(): Promise<void> {
    for (const { generationKey } of this.#scopes) {
      const fresh = formatGeneration(1, nonce());
      const [before] = await Promise.all([
        this.#writer().get(generationKey),
        this.#writer().set(generationKey, fresh, 'PX', 600_000),
      ]);
      if (before !== null) this.#old.set(before as Generation, performance.now());
    }
  }

  /** Notes that these generations are old from now on, after a fault that changed the server's data. */
  noteOld(generations: readonly (string | null)[]): void {
    for (const one of generations) if (one !== null) this.#old.set(one as Generation, performance.now());
  }

  current(): Promise<(string | null)[]> {
    return Promise.all(this.keys.map((key) => this.#writer().get(key)));
  }

  /** Resolves when the generations that stand are all verified. */
  async settled(): Promise<void> {
    await eventually(async () => {
      const current = await this.current();
      expect(isVerified(this.#scopes, current as Generation[])).to.equal(true);
    });
  }

  /** Resolves once no generation is verified. */
  async unverified(): Promise<void> {
    await eventually(() => {
      for (const scope of this.#scopes) expect(this.#verifiedOf(scope)).to.equal(undefined);
    });
  }

  #verifiedOf(scope: RegisteredScope): Generation | undefined {
    const generation = scope.tracked?.verified;
    return generation !== undefined && isVerified([scope], [generation]) ? generation : undefined;
  }

  async #check(): Promise<void> {
    while (!this.#isEnding) {
      for (const scope of this.#scopes) {
        const generation = this.#verifiedOf(scope);
        const atMs = performance.now();
        if (generation === undefined) continue;
        this.tracked++;
        const oldForMs = atMs - (this.#old.get(generation) ?? Infinity);
        // Between the decision and the reading of the clock this process may be stopped, on a busy machine.
        if (oldForMs > HEARTBEAT_MS && this.#verifiedOf(scope) === generation) {
          this.#old.delete(generation);
          void this.#accuse(scope, generation, `verified, and old for ${oldForMs} ms`);
        }
      }
      await setImmediate();
    }
  }

  /** Notes a violation, unless the store has that generation: it lost the bump that made it old. */
  async #accuse({ path, generationKey }: RegisteredScope, generation: Generation, why: string): Promise<void> {
    const current = await this.#writer().get(generationKey);
    if (current !== generation) this.violations.push(`${generation} of ${path} is ${why}; it is ${current}`);
  }

  async #read(): Promise<void> {
    while (!this.#isEnding) {
      // What is verified is not read again: an old generation stays until a push, or the heartbeat, ends it.
      if (this.#scopes.every((scope) => this.#verifiedOf(scope) !== undefined)) {
        await setImmediate();
        continue;
      }
      const asked = this.#generations.ask(this.#scopes);
      try {
        const replies = await this.#lent.asked.read(...this.#scopes.map(({ generationKey }) => generationKey));
        const states = replies.map((reply): GenerationState =>
          reply === null ? 'missing' : generationState(String(reply)),
        );
        this.#generations.reply(asked, this.#scopes, states);
      } catch {
        // The store is away; the next read asks again.
      }
      await this.wait(5);
    }
  }
}
