import { instantMs, OtherProcess } from './other-process.js';
import type { Opening, ReadingOrder, ReadingReport } from './reading-process.js';

/** Processes of one application, which read through caches of one name. */
export class Readers {
  readonly #processes: readonly OtherProcess<ReadingOrder>[];

  private constructor(processes: readonly OtherProcess<ReadingOrder>[]) {
    this.#processes = processes;
  }

  static async start(count: number, opening: Opening): Promise<Readers> {
    const program = new URL('./reading-process.js', import.meta.url);
    const processes = Array.from({ length: count }, () => new OtherProcess<ReadingOrder>(program));
    await Promise.all(processes.map((one) => one.ask({ open: opening })));
    return new Readers(processes);
  }

  /** Lets every process read at the same instant; `keys` gives those of a process, by its index. */
  async read(readers: number, keys: (index: number) => readonly number[]): Promise<ReadingReport[]> {
    // By then each has got its order.
    const atMs = instantMs() + 50;
    return Promise.all(
      this.#processes.map(
        (one, index) => one.ask({ read: { keys: keys(index), readers, atMs } }) as Promise<ReadingReport>,
      ),
    );
  }

  end(): void {
    for (const one of this.#processes) one.end();
  }
}
