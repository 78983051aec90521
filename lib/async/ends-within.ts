/** Whether work has ended, however it did, by the time this many ms are up. Never rejects; what is late goes on by itself. */
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
