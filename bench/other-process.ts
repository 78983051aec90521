import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

/** Instants are of `process.hrtime`, in ms: one clock for all processes of a machine. */
export const instantMs = () => Number(process.hrtime.bigint()) / 1e6;

/** A process beside the measuring one, which takes no time of it. Its program obeys orders. */
export class OtherProcess<Order extends object | string> {
  readonly #process: ChildProcess;
  readonly #died: Promise<never>;

  /** `program`: the URL of its file, which calls `obeyOrders`. */
  constructor(program: URL) {
    this.#process = fork(program);
    this.#died = once(this.#process, 'exit').then(([code]) => {
      throw new Error(`The process of ${program.pathname} ended with ${String(code)}.`);
    });
    this.#died.catch(() => {});
  }

  /** Gives an order, and resolves with the answer. One order at a time. */
  async ask(order: Order): Promise<unknown> {
    this.#process.send(order);
    const [answer] = (await Promise.race([once(this.#process, 'message'), this.#died])) as [unknown];
    return answer;
  }

  end(): void {
    this.#process.kill();
  }
}

/** What the program of such a process does: it gives one answer to each order, until the measuring process ends. */
export function obeyOrders(obey: (order: never) => Promise<unknown>): void {
  if (!process.send) return;
  process.on('message', (order) => {
    void obey(order as never).then((answer) => process.send!(answer ?? null));
  });
  process.on('disconnect', () => process.exit());
}
