import type { Redis } from 'ioredis';
import { AsciiScript } from './ascii-script.js';
import { BEAT } from './beat.lua.js';
import { BUMP } from './bump.lua.js';
import { CLAIM } from './claim.lua.js';
import { DEMAND } from './demand.lua.js';
import { FILL } from './fill.lua.js';
import { FRESHNESS } from './freshness.lua.js';
import { LEASE } from './lease.lua.js';
import { LIFT } from './lift.lua.js';
import { MINT } from './mint.lua.js';
import { QUARANTINE } from './quarantine.lua.js';
import { RENEW } from './renew.lua.js';
import { REPAIR } from './repair.lua.js';

type Argument = string | number | Buffer;

/** An ioredis client with a method for each script: `(number of keys, keys and arguments)`. */
export interface WithScripts extends Redis {
  gencacheMint(keys: number, args: readonly Argument[]): Promise<string[]>;
  /** An array of numbers; for a single key its number, without an array. */
  gencacheBump(keys: number, args: readonly (string | number)[]): Promise<number | number[]>;
  gencacheClaim(keys: number, args: readonly Argument[]): Promise<[string, number]>;
  gencacheFill(keys: number, args: readonly Argument[]): Promise<[string, number]>;
  gencacheLease(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheQuarantine(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheLift(keys: number, args: readonly Argument[]): Promise<string>;
  gencacheRenew(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheRepair(keys: number, args: readonly Argument[]): Promise<number>;
  gencacheDemand(keys: number, args: readonly Argument[]): Promise<string>;
  gencacheFreshnessBuffer(keys: number, args: readonly Argument[]): Promise<[Buffer | null, number]>;
  gencacheBeatBuffer(
    keys: number,
    args: readonly Argument[],
  ): Promise<[number, Buffer | null, number, ...([Buffer | null, number] | null)[]]>;
}

/**
 * Gives the client a method for each script. ioredis sends a script's text with its first call on a connection, and its
 * SHA from then on. A server that has forgotten the script answers NOSCRIPT and executes nothing, so ioredis may send the
 * command again with the same nonce.
 */
export function defineScripts(client: Redis): WithScripts {
  client.defineCommand('gencacheMint', { lua: MINT });
  client.defineCommand('gencacheClaim', { lua: CLAIM });
  client.defineCommand('gencacheFill', { lua: FILL });
  client.defineCommand('gencacheLease', { lua: LEASE });
  client.defineCommand('gencacheQuarantine', { lua: QUARANTINE });
  client.defineCommand('gencacheLift', { lua: LIFT });
  client.defineCommand('gencacheRenew', { lua: RENEW });
  client.defineCommand('gencacheRepair', { lua: REPAIR });
  client.defineCommand('gencacheDemand', { lua: DEMAND });
  client.defineCommand('gencacheFreshness', { lua: FRESHNESS });
  client.defineCommand('gencacheBeat', { lua: BEAT });
  const withScripts = client as WithScripts;
  withScripts.gencacheBump = (keys, args) => bump.run(client, keys, args) as Promise<number | number[]>;
  return withScripts;
}

/** A bump of global on a Cluster sends it once for each partition. */
const bump = new AsciiScript(BUMP);

/** The scripts that may be run for one key at a time, and so while its slot is being moved. */
export type ScriptsOfOneKey = Pick<WithScripts, 'gencacheBump' | 'gencacheQuarantine' | 'gencacheLift'>;

/**
 * Returns the client of a node to which a slot is being moved, for one command: ASKING goes before it. The node forgets
 * ASKING with the next command, so the script is sent as text: a NOSCRIPT would use it up.
 */
export function askingClient(client: WithScripts): ScriptsOfOneKey {
  const asking =
    (script: string) =>
    (keys: number, args: readonly Argument[]): Promise<never> => {
      // Its failure is that of the connection, which the script's own reply tells.
      client.asking().catch(() => {});
      return client.eval(script, keys, ...args) as Promise<never>;
    };
  return { gencacheBump: asking(BUMP), gencacheQuarantine: asking(QUARANTINE), gencacheLift: asking(LIFT) };
}
