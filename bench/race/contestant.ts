import { readFileSync } from 'node:fs';
import type { ProductRow } from './product-row.js';

/** A caching library and one documented way to invalidate what it caches. */
export interface Contestant {
  readonly library: string;
  readonly version: string;
  /** The call that invalidates, as the library's documentation spells it. */
  readonly invalidatedBy: string;
  /** The store, where it is not Redis. */
  readonly store?: string;
  /** Starts with an empty cache; `load` reads the row. */
  open(redisUrl: string, load: Load): Promise<OpenCache>;
}

export type Load = () => Promise<ProductRow>;

/** One cached row, read and invalidated as the library's documentation shows. */
export interface OpenCache {
  /** Answers from the cache, or loads the row and stores it. */
  read(): Promise<ProductRow | undefined | null>;
  invalidate(): Promise<unknown>;
  /** Resolves when writes behind earlier answers have ended. Absent where `read` waits for its own write. */
  settled?(): Promise<void>;
  close(): Promise<unknown>;
}

/** Nothing expires during a race. */
export const TTL_MS = 3_600_000;

/** The installed version of one of bench's packages. */
export function versionOf(name: string): string {
  return versionIn(new URL(`../node_modules/${name}/package.json`, import.meta.url));
}

export function versionIn(packageJson: URL): string {
  return (JSON.parse(readFileSync(packageJson, 'utf8')) as { version: string }).version;
}
