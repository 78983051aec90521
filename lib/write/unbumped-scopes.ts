/**
 * The scopes of this process's own changes whose bump failed.
 *
 * While such a bump is missing, the store may hold what the change made old, and the process that made the change would read
 * it back as soon as the store is there again (docs/protocol.md, rule 23a). So its readers bypass these scopes, and the
 * bumps are tried again, once in a while and whenever the store comes back, until they succeed.
 *
 * A bump counts as a success only if it began after the failure was noted: one that was under way before may have been
 * carried out before the change was committed.
 */
import { clearTimeout, setTimeout } from '../async/scheduling.js';

interface UnbumpedOptions {
  /** Bumps scopes by their paths. Rejects if the bump failed. */
  readonly bump: (paths: readonly string[]) => Promise<unknown>;
  /** Time between two attempts, in ms. */
  readonly retryMs: number;
}

/** Most scopes that are noted one by one; beyond them, the whole cache is. */
const SCOPES_MAX = 10_000;
const GLOBAL = '';

export class UnbumpedScopes {
  readonly #options: UnbumpedOptions;
  /** The number of the failure, by path. */
  readonly #failures = new Map<string, number>();
  #steps = 0;
  #timer: NodeJS.Timeout | undefined;
  #isTrying = false;
  #isClosed = false;

  constructor(options: UnbumpedOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#failures.size;
  }

  /** Whether a bump of one of these scopes is missing. */
  includes(scopes: readonly { readonly path: string }[]): boolean {
    return this.#failures.size > 0 && scopes.some(({ path }) => this.#failures.has(path));
  }

  /** Begins a bump. Returns what `succeeded` needs. */
  begin(): number {
    return ++this.#steps;
  }

  /** A bump failed, or its outcome is unknown. */
  failed(paths: readonly string[]): void {
    if (this.#isClosed) return;
    const step = ++this.#steps;
    for (const path of paths) this.#failures.set(path, step);
    if (this.#failures.size > SCOPES_MAX) {
      this.#failures.clear();
      this.#failures.set(GLOBAL, step);
    }
    this.#retryLater();
  }

  /** A bump that began with `step` succeeded: it covers these scopes, and those below them. */
  succeeded(paths: readonly string[], step: number): void {
    if (this.#failures.size === 0) return;
    for (const [failed, failedAt] of this.#failures) {
      if (failedAt < step && paths.some((path) => isWithin(failed, path))) this.#failures.delete(failed);
    }
  }

  /** Tries the missing bumps now: the store is there again. */
  retryNow(): void {
    if (this.#failures.size > 0) void this.#retry();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #retryLater(): void {
    if (this.#failures.size === 0 || this.#isClosed) return;
    this.#timer ??= setTimeout(() => void this.#retry(), this.#options.retryMs).unref();
  }

  async #retry(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isTrying || this.#isClosed) return;
    this.#isTrying = true;
    const paths = [...this.#failures.keys()];
    const step = this.begin();
    try {
      await this.#options.bump(paths);
      this.succeeded(paths, step);
    } catch {
      // They stay noted; the bump emitted its own event.
    } finally {
      this.#isTrying = false;
      this.#retryLater();
    }
  }
}

function isWithin(path: string, scope: string): boolean {
  return scope === GLOBAL || path === scope || path.startsWith(`${scope}/`);
}
