import { setImmediate } from 'node:timers/promises';
import { expect } from 'chai';

export const HEARTBEAT_MS = 400;

/** A process that reads without a pause what it knows by tracking, beside a writer that changes it: what faults are tried on. */
export abstract class TrackedProcess {
  /** Reads that answered what had been old for longer than the heartbeat. */
  readonly violations: string[] = [];
  /** How often it answered by what it knows. */
  abstract readonly tracked: number;
  /** Changes all that is read, from another process. */
  abstract bumpAll(): Promise<void>;
  /** Resolves once the present state is known. */
  abstract settled(): Promise<void>;
  /** Resolves once nothing is known. */
  abstract unverified(): Promise<void>;

  /** Bumps during a fault, and waits for twice the heartbeat. */
  async bumpThrough(): Promise<void> {
    await this.bumpAll();
    await this.wait();
  }

  /** Lets the reader run for this long. */
  async wait(ms = 2 * HEARTBEAT_MS): Promise<void> {
    const untilMs = performance.now() + ms;
    while (performance.now() < untilMs) await setImmediate();
  }

  /** With the fault over: the reader goes on, and what it answered was right. */
  async verify(): Promise<void> {
    await this.bumpAll();
    await this.settled();
    expect(this.violations).to.deep.equal([]);
    expect(this.tracked).to.be.above(0);
  }
}
