import type { BatchSlot } from './batch-slot.js';

/** Most entries of one lookup command, which has about 2,500 keys then, and about the most characters of their paths. */
const LOOKUP_ENTRIES_MAX = 1_000;
const LOOKUP_PATHS_MAX = 100_000;

/** Splits the slots of a batch into chunks of one lookup command each, in their order. */
export function lookupChunks(slots: BatchSlot[]): BatchSlot[][] {
  const chunks: BatchSlot[][] = [];
  let start = 0;
  let paths = 0;
  for (let end = 0; end < slots.length; end++) {
    const { length } = slots[end]!.address.scope.path;
    if (end > start && (end - start === LOOKUP_ENTRIES_MAX || paths + length > LOOKUP_PATHS_MAX)) {
      chunks.push(slots.slice(start, end));
      start = end;
      paths = 0;
    }
    paths += length;
  }
  chunks.push(start === 0 ? slots : slots.slice(start));
  return chunks;
}
