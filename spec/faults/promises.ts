/**
 * What readers may no longer get: from an instant on, no read of an item returns a version older than this one.
 *
 * An instant is noted after the event that it stands for (a call has resolved, a query was answered), and a read counts
 * from before its call, all by the monotonic clock of this process. So every uncertainty favours the readers.
 */
import { expect } from 'chai';

export interface Read {
  readonly item: number;
  readonly version: number;
  readonly beganMs: number;
  readonly tookMs: number;
}

interface Promised {
  readonly version: number;
  readonly fromMs: number;
  readonly since: string;
}

export class Promises {
  readonly #promised = new Map<number, Promised[]>();

  /** From an instant on, now by default, no read of the item may be older than `version`. `since` says why. */
  add(item: number, version: number, since: string, fromMs = performance.now()): void {
    const promised = this.#promised.get(item);
    if (promised === undefined) this.#promised.set(item, [{ version, fromMs, since }]);
    else promised.push({ version, fromMs, since });
  }

  /** Fails for the first read that is older than was promised. Returns the number of promises. */
  judge(reads: readonly Read[]): number {
    let promises = 0;
    for (const [item, promised] of this.#promised) {
      promises += promised.length;
      // The read with the latest start first: each promise that is younger than a read leaves the stack for good.
      const before = promised.toSorted((one, other) => one.fromMs - other.fromMs);
      const highest: Promised[] = [];
      for (const next of before) highest.push(next.version > (highest.at(-1)?.version ?? 0) ? next : highest.at(-1)!);
      const own = reads.filter((read) => read.item === item).toSorted((one, other) => other.beganMs - one.beganMs);
      for (const { version, beganMs } of own) {
        while (before.length > 0 && before.at(-1)!.fromMs >= beganMs) before.pop();
        const due = highest[before.length - 1];
        if (due === undefined || version >= due.version) continue;
        expect.fail(
          `item ${item}: a read returned version ${version}, and began ${(beganMs - due.fromMs).toFixed(1)} ms after ` +
            `${due.since} of version ${due.version}`,
        );
      }
    }
    return promises;
  }
}
