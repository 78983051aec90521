import type { Redis } from 'ioredis';
import { BUMP } from './bump.lua.js';
import { FILL } from './fill.lua.js';
import { LIFT } from './lift.lua.js';
import { MINT } from './mint.lua.js';
import { QUARANTINE } from './quarantine.lua.js';
import { RENEW } from './renew.lua.js';
import { REPAIR } from './repair.lua.js';

type Argument = string | number | Buffer;

/** A client that knows the store's scripts: `(number of keys, keys and arguments)`. */
export interface WithScripts extends Redis {
  gencacheMint(keys: number, args: readonly Argument[]): Promise<string[]>;
  /** Of a single key, its number alone. */
  gencacheBump(keys: number, args: readonly Argument[]): Promise<number | number[]>;
  gencacheFill(keys: number, args: readonly Argument[]): Promise<string>;
  gencacheQuarantine(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheLift(keys: number, args: readonly Argument[]): Promise<string>;
  gencacheRenew(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheRepair(keys: number, args: readonly Argument[]): Promise<number>;
}

/**
 * ioredis sends a script's text with its first use on a connection, and its SHA from then on. When the server has
 * forgotten it, NOSCRIPT says that nothing was carried out, so sending it again is safe for nonces too.
 */
export function defineScripts(client: Redis): WithScripts {
  client.defineCommand('gencacheMint', { lua: MINT });
  client.defineCommand('gencacheBump', { lua: BUMP });
  client.defineCommand('gencacheFill', { lua: FILL });
  client.defineCommand('gencacheQuarantine', { lua: QUARANTINE });
  client.defineCommand('gencacheLift', { lua: LIFT });
  client.defineCommand('gencacheRenew', { lua: RENEW });
  client.defineCommand('gencacheRepair', { lua: REPAIR });
  return client as WithScripts;
}
