import { nextTick } from './scheduling.js';
import { inNoContext } from './no-context.js';

/**
 * Collects the items of one turn of the event loop and passes them to `run` together.
 *
 * The turn ends after the promise jobs that are queued now and those they queue, before any I/O: `await`s that
 * resolve together still join (the scheduling of graphql/dataloader, `enqueuePostPromiseJob`). DataLoader itself
 * settles a batch as a whole, which would make a hit wait for another entry's load. `run` is called in no caller's async
 * context.
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

  /** Whether the batch holds items that `run` has not got yet. */
  get pending(): boolean {
    return this.#items.length > 0;
  }

  // A field, since a closure per hit would cost.
  readonly #afterPromises = (): void => nextTick(this.#end);

  readonly #end = (): void => {
    const items = this.#items;
    this.#items = [];
    inNoContext(this.#run, items);
  };
}

const RESOLVED = Promise.resolve();
