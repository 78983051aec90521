import { clearTimeout, setTimeout } from './scheduling.js';

/** Resolves to whether `work` settles within `limitMs`, resolved or rejected. Never rejects; late work continues by itself. */
export async function endsWithin(limitMs: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<false>((resolve) => (timer = setTimeout(resolve, limitMs, false)));
  const ended = () => true;
  try {
    return await Promise.race([work.then(ended, ended), limit]);
  } finally {
    clearTimeout(timer);
  }
}
