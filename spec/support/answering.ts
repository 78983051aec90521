import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { lend } from './lenders.js';

/**
 * A server that answers the requests for which `answer` returns a reply, and passes the others on to Redis. `answer`
 * gets each chunk of bytes, which is one command from a client that awaits each reply.
 */
export async function startAnswering(
  redisPort: number,
  answer: (request: string) => string | undefined,
): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const redis = connect(redisPort, '127.0.0.1');
    for (const [socket, other] of [
      [client, redis],
      [redis, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => other.destroy());
    }
    redis.pipe(client);
    client.on('data', (request) => {
      const reply = answer(request.toString('latin1'));
      if (reply === undefined) redis.write(request);
      else client.write(reply);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  lend({
    what: 'the answering server',
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  });
  return `redis://127.0.0.1:${(server.address() as { port: number }).port}`;
}
