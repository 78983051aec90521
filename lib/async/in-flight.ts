/** Counts what is under way, and tells when nothing is. */
export class InFlight {
  #underWay = 0;
  #waiting: (() => void)[] = [];

  /** Counts `work` until it settles; what it throws is its caller's to handle. */
  track(work: Promise<unknown>): void {
    this.#underWay++;
    work.then(this.#done, this.#done);
  }

  /** Resolves as soon as nothing is under way; what begins while it waits is waited for too. */
  async idle(): Promise<void> {
    while (this.#underWay > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when nothing is under way, nor collected for the end of this turn, where it would begin. */
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
