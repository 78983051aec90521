import { setImmediate } from './scheduling.js';

/** Counts the work under way, and signals when the count is 0. */
export class InFlight {
  #underWay = 0;
  #waiting: (() => void)[] = [];

  /** Counts `work` until it settles; the caller handles its rejection. */
  track(work: Promise<unknown>): void {
    this.#underWay++;
    work.then(this.#done, this.#done);
  }

  /** Resolves as soon as no work is under way, including work that starts during the wait. */
  async idle(): Promise<void> {
    while (this.#underWay > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when no work is under way, and `turn` holds no item, whose work would start at the end of this turn. */
  async drained(turn: { readonly pending: boolean }): Promise<void> {
    do {
      await this.idle();
      await new Promise(setImmediate);
    } while (turn.pending);
    await this.idle();
  }

  readonly #done = (): void => {
    if (--this.#underWay > 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  };
}
