import type { Redis } from 'ioredis';
import { BUMP } from './bump.lua.js';
import { FILL } from './fill.lua.js';
import { MINT } from './mint.lua.js';

type Argument = string | number | Buffer;

/** A client that knows the store's scripts: `(number of keys, keys and arguments)`. */
export interface WithScripts extends Redis {
  gencacheMint(keys: number, args: readonly Argument[]): Promise<string[]>;
  /** Of a single key, its number alone. */
  gencacheBump(keys: number, args: readonly Argument[]): Promise<number | number[]>;
  gencacheFill(keys: number, args: readonly Argument[]): Promise<string>;
}

/**
 * ioredis sends a script's text with its first use on a connection, and its SHA from then on. When the server has
 * forgotten it, NOSCRIPT says that nothing was carried out, so sending it again is safe for nonces too.
 */
export function defineScripts(client: Redis): WithScripts {
  client.defineCommand('gencacheMint', { lua: MINT });
  client.defineCommand('gencacheBump', { lua: BUMP });
  client.defineCommand('gencacheFill', { lua: FILL });
  return client as WithScripts;
}
