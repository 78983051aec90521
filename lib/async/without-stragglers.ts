import { clearTimeout, setTimeout } from './scheduling.js';

/**
 * Resolves once all of this work has settled, or `graceMs` after the first of it was fulfilled: what is late then goes on by
 * itself. Where this process itself was late, all replies are there together. Never rejects.
 */
export async function withoutStragglers(work: readonly Promise<unknown>[], graceMs: number): Promise<void> {
  const all = Promise.allSettled(work);
  if (work.length <= 1) return void (await all);
  let timer: NodeJS.Timeout | undefined;
  const grace = Promise.any(work).then(
    () => new Promise<void>((resolve) => (timer = setTimeout(resolve, graceMs))),
    () => {},
  );
  await Promise.race([all, grace]);
  clearTimeout(timer);
}
