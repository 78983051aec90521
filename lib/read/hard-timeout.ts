import { clearTimeout, setTimeout } from '../async/scheduling.js';
import { LoadTimeoutError } from '../errors/errors.js';
import type { EntryDefinition } from '../model/entry-definition.js';

/**
 * Settles as a load does, or rejects with LoadTimeoutError at the hard timeout of its entry, and then aborts `stop`. The
 * load itself goes on until its loader settles.
 */
export async function withinHardTimeout<T>(
  { name, loadHardTimeoutMs }: EntryDefinition,
  load: Promise<T>,
  stop: AbortController,
): Promise<T> {
  if (loadHardTimeoutMs === 0) return load;
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    // Of no use to a process that has nothing else to do.
    timer = setTimeout(() => reject(new LoadTimeoutError(name, loadHardTimeoutMs)), loadHardTimeoutMs).unref();
  });
  try {
    return await Promise.race([load, timeout]);
  } catch (error) {
    if (error instanceof LoadTimeoutError) stop.abort(error);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
