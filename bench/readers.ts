import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { instantMs, type Opening, type ReadingOrder, type ReadingReport } from './reading-process.js';

/** Processes of one application, which read through caches of one name. */
export class Readers {
  readonly #processes: readonly ChildProcess[];

  private constructor(processes: readonly ChildProcess[]) {
    this.#processes = processes;
  }

  static async start(count: number, opening: Opening): Promise<Readers> {
    const processes = Array.from({ length: count }, () => fork(new URL('./reading-process.js', import.meta.url)));
    for (const child of processes) {
      child.once('exit', (code, signal) => {
        if (signal !== 'SIGTERM') child.emit('error', new Error(`A reading process ended with ${String(code)}.`));
      });
    }
    const readers = new Readers(processes);
    await Promise.all(processes.map((child) => ask(child, { open: opening })));
    return readers;
  }

  /** Lets every process read at the same instant; `keys` gives those of a process, by its index. */
  async read(readers: number, keys: (index: number) => readonly number[]): Promise<ReadingReport[]> {
    // By then each has got its order.
    const atMs = instantMs() + 50;
    return Promise.all(
      this.#processes.map(
        (child, index) => ask(child, { read: { keys: keys(index), readers, atMs } }) as Promise<ReadingReport>,
      ),
    );
  }

  end(): void {
    for (const child of this.#processes) child.kill();
  }
}

async function ask(child: ChildProcess, order: ReadingOrder): Promise<unknown> {
  child.send(order);
  // `once` rejects with an `error`, which `start` makes of an exit.
  const [answer] = (await once(child, 'message')) as [unknown];
  return answer;
}
