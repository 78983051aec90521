/** Another service: rates of currencies, over HTTP. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const RATES: Readonly<Record<string, number>> = { CHF: 0.94, SEK: 11.2 };

const server = createServer((request, response) => {
  const rate = RATES[request.url!.slice(1)];
  response.writeHead(rate === undefined ? 404 : 200).end(JSON.stringify({ rate }));
}).listen(0, '127.0.0.1');
await once(server, 'listening');

export const RATES_URL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

export async function end(): Promise<void> {
  server.closeAllConnections();
  server.close();
}
