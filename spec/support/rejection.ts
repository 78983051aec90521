/** The error that a promise rejects with; an error of its own when it resolves. */
export async function rejection(work: PromiseLike<unknown>): Promise<Error> {
  let value: unknown;
  try {
    value = await work;
  } catch (error) {
    return error as Error;
  }
  throw new Error(`It was to reject, and resolved to ${JSON.stringify(value)}.`);
}

/** The error that a function throws; an error of its own when it returns. */
export function thrown(work: () => unknown): Error {
  let value: unknown;
  try {
    value = work();
  } catch (error) {
    return error as Error;
  }
  throw new Error(`It was to throw, and returned ${JSON.stringify(value)}.`);
}
