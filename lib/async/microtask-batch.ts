/**
 * Collects what arrives in one turn of the event loop and hands it on together.
 *
 * The turn ends after the promise jobs that are queued now and those they queue, before any I/O: `await`s that
 * resolve together still join (the scheduling of graphql/dataloader, `enqueuePostPromiseJob`). DataLoader itself
 * settles its batch as one, so that a hit would wait for another entry's load.
 */
export class MicrotaskBatch<T> {
  #items: T[] = [];
  readonly #run: (items: T[]) => void;

  constructor(run: (items: T[]) => void) {
    this.#run = run;
  }

  add(item: T): void {
    if (this.#items.push(item) > 1) return;
    void RESOLVED.then(this.#afterPromises);
  }

  /** Whether something was collected and not yet handed on. */
  get pending(): boolean {
    return this.#items.length > 0;
  }

  // Made once: every hit comes by here.
  readonly #afterPromises = (): void => process.nextTick(this.#end);

  readonly #end = (): void => {
    const items = this.#items;
    this.#items = [];
    this.#run(items);
  };
}

const RESOLVED = Promise.resolve();
