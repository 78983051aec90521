import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * Ports below the range from which Linux (32768-60999) and macOS (49152-65535) take the ports of outgoing
 * connections. `listen(0)` hands out ports of that range, and while a server is down for a restart any client's
 * connection may be given its port.
 */
const LOWEST = 20_000;
const HIGHEST = 32_000;
const ATTEMPTS = 50;

/**
 * A port of 127.0.0.1 that was free a moment ago. Another process may take it before its user listens on it:
 * who starts a server tries again with another one.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const port = randomInt(LOWEST, HIGHEST);
    if (await isFree(port)) return port;
  }
  throw new Error(`No port of 127.0.0.1 between ${LOWEST} and ${HIGHEST} was free in ${ATTEMPTS} attempts.`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
