/**
 * Redis as some hosts offer it, for `startProxy({ host })`. The fields of INFO are those of Dragonfly's `server_family.cc` and
 * of Garnet's `GarnetInfoMetrics.cs`, of 2025.
 */
import { bulk, type Host } from './host.js';

/** Refuses commands by name. */
export function refusing(names: RegExp, error: (name: string) => string): Host {
  return ([name]) => (names.test(name!) ? { reply: `-${error(name!)}\r\n` } : undefined);
}

/** Changes the lines of INFO. */
function infoLines(change: (lines: readonly string[]) => readonly string[]): Host {
  return ([name]) =>
    /^info$/i.test(name!)
      ? {
          rewrite: (reply) => {
            const lines = reply.slice(reply.indexOf('\r\n') + 2, -2).split('\r\n');
            return bulk(change(lines).join('\r\n'));
          },
        }
      : undefined;
}

/** Takes a command away from scripts alone: each is sent as text, with a command that Redis does not know in its place. */
function refusingInScripts(name: string): Host {
  return ([command, script, ...rest]) => {
    if (/^evalsha$/i.test(command!)) return { reply: NOSCRIPT };
    if (!/^eval$/i.test(command!)) return undefined;
    return { command: [command!, script!.replaceAll(`call('${name}'`, `call('NO${name}'`), ...rest] };
  };
}

const NOSCRIPT = '-NOSCRIPT No matching script. Please use EVAL.\r\n';
const unknown = (name: string) => `ERR unknown command '${name}', with args beginning with: `;

export const HOSTS = {
  'that is Redis': () => undefined,
  'that does not know INFO': refusing(/^info$/i, unknown),
  'that forbids INFO': refusing(
    /^info$/i,
    (name) => `NOPERM this user has no permissions to run the '${name.toLowerCase()}' command`,
  ),
  /** No `run_id`, and a policy of its own. */
  'like Dragonfly': infoLines((lines) => [
    ...lines.filter((line) => !/^(?:run_id|maxmemory)/.test(line)),
    ...['maxmemory:1073741824', 'maxmemory_human:1.00GiB', 'cache_mode:cache', 'maxmemory_policy:eviction'],
  ]),
  /** No policy. */
  'like Garnet': infoLines((lines) => lines.filter((line) => !line.startsWith('maxmemory'))),
  'with few sections in INFO': infoLines(() => ['# Server', 'redis_version:6.2.6', '# Clients', 'connected_clients:1']),
  'that refuses INFO in scripts': refusingInScripts('INFO'),
  'that refuses TIME in scripts': refusingInScripts('TIME'),
  'that refuses TIME': refusing(/^time$/i, unknown),
  'that refuses scripts': refusing(/^eval/i, unknown),
  'that forgets each script': ([name]) => (/^evalsha$/i.test(name!) ? { reply: NOSCRIPT } : undefined),
  'that has no HELLO': refusing(/^hello$/i, unknown),
  'that has RESP2 alone': refusing(/^hello$/i, () => 'NOPROTO unsupported protocol version'),
  'that refuses all other commands': refusing(
    /^(?!(?:mget|get|set|del|unlink|type|pttl|pexpire|pexpireat|time|info|eval|evalsha)$)/i,
    unknown,
  ),
} satisfies Record<string, Host>;

/** A replica, in Dragonfly's word for it. */
export const REPLICA_OF_DRAGONFLY = infoLines((lines) =>
  lines.map((line) => (line.startsWith('role:') ? 'role:replica' : line)),
);
