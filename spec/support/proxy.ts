/**
 * A TCP proxy that makes a network's faults real, between a client and a server of 127.0.0.1.
 *
 * Each connection is two lanes, requests and replies. A lane forwards chunks in order, each when the lane is open
 * and its delay is over; a side's end is one more item of the lane, so a held lane hides also that. What is held
 * stays in memory, without a limit: specs hold little and not for long.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { deferred } from './deferred.js';
import { type Host, HostedConnection } from './host.js';
import { lend, type Lifetime } from './lenders.js';
import { freePort } from './servers/free-port.js';

const HOST = '127.0.0.1';
const PORT_ATTEMPTS = 10;

export interface ProxyOptions {
  /** Of `url`; `redis` unless given. */
  readonly protocol?: string;
  /** What clients take the other side for; by default the Redis that it is. */
  readonly host?: Host;
  readonly for?: Lifetime;
}

/** Listens on a free port and forwards to `targetPort`; closed after the spec, or when its suite ends. */
export async function startProxy(targetPort: number, options: ProxyOptions = {}): Promise<Proxy> {
  for (let attempt = 1; ; attempt++) {
    const proxy = new Proxy(await freePort(), targetPort, options);
    try {
      await proxy.accept();
    } catch (error) {
      if (attempt < PORT_ATTEMPTS) continue; // another process took the port
      throw error;
    }
    lend(
      {
        what: `the proxy to port ${targetPort}`,
        close: () => proxy.close(),
        sockets: () => 2 * proxy.connections,
      },
      options.for,
    );
    return proxy;
  }
}

export class Proxy {
  readonly port: number;
  readonly url: string;
  /** How long each reply is held back, in ms; 0 by default. */
  delayMs = 0;
  /** Bytes that clients have sent so far. */
  requestBytes = 0;
  /** Whether nothing passes over connections that are made from now on. */
  holdsNew = false;
  /** Asked for the first bytes of each connection; false ends it before they pass. */
  admits: (first: Buffer) => boolean = () => true;
  readonly #targetPort: number;
  readonly #host: Host | undefined;
  readonly #connections = new Set<Connection>();
  #server: Server | undefined;
  #requestsHeld = false;
  #repliesHeld = false;
  #dropping: { readonly half: boolean; resolve(): void } | undefined;

  constructor(port: number, targetPort: number, { protocol = 'redis', host }: ProxyOptions = {}) {
    this.port = port;
    this.#host = host;
    this.url = `${protocol}://${HOST}:${port}`;
    this.#targetPort = targetPort;
  }

  /** How many clients are connected. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Destroys every connection, and with it what is held. New ones are accepted. */
  cut(): void {
    for (const connection of this.#connections) connection.destroy();
  }

  /** Stops listening: new connections are refused at once, those that exist go on. */
  refuse(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** Listens again. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer({ allowHalfOpen: true }, (client) => this.#connect(client));
    server.listen(this.port, HOST);
    await once(server, 'listening');
    this.#server = server;
  }

  /** Half-open: connections stay, also new ones are accepted, and nothing passes in either direction. */
  hold(): void {
    this.#requestsHeld = true;
    this.#repliesHeld = true;
    this.#update();
  }

  /** Ends `hold`: passes on what was held, in order. */
  release(): void {
    this.#requestsHeld = false;
    this.#repliesHeld = false;
    this.#update();
  }

  /** The server gets and runs the requests; their answers wait. */
  holdReplies(): void {
    this.#repliesHeld = true;
    this.#update();
  }

  releaseReplies(): void {
    this.#repliesHeld = false;
    this.#update();
  }

  /**
   * The server gets and runs a request, but its client never learns: at the next reply, of what is in flight or of
   * the next request, every connection is cut instead. Once; resolves when it has happened. Answers that were held
   * are lost too, in that moment. `half`: one half of that reply arrives before.
   */
  dropReplies({ half = false } = {}): Promise<void> {
    const { promise, resolve } = deferred();
    this.#dropping = { half, resolve };
    if ([...this.#connections].some(({ replies }) => replies.waiting)) this.#drop();
    return promise;
  }

  async close(): Promise<void> {
    const closed = this.#server && once(this.#server, 'close');
    this.refuse();
    this.cut();
    await closed;
  }

  #drop(): void {
    const dropped = this.#dropping;
    this.#dropping = undefined;
    this.cut();
    dropped?.resolve();
  }

  #update(): void {
    for (const { requests, replies } of this.#connections) {
      requests.held = this.#requestsHeld;
      replies.held = this.#repliesHeld;
    }
  }

  #connect(client: Socket): void {
    const target = connect({ port: this.#targetPort, host: HOST, allowHalfOpen: true });
    client.once('data', (first: Buffer) => {
      if (!this.admits(first)) connection.destroy();
    });
    const hosted = this.#host && new HostedConnection(this.#host);
    const connection: Connection = {
      requests: new Lane(client, target, () => 0, hosted && ((chunk) => hosted.request(chunk))),
      replies: new Lane(target, client, () => this.delayMs, hosted && ((chunk) => hosted.reply(chunk))),
      destroy: () => {
        this.#connections.delete(connection);
        connection.requests.discard();
        connection.replies.discard();
        client.destroy();
        target.destroy();
      },
    };
    client.on('data', (chunk) => (this.requestBytes += chunk.length));
    this.#connections.add(connection);
    connection.replies.intercept = (chunk) => {
      if (this.#dropping === undefined) return false;
      if (this.#dropping.half) client.write(chunk.subarray(0, chunk.length / 2));
      this.#drop();
      return true;
    };
    for (const socket of [client, target]) {
      socket.setNoDelay(true);
      socket.on('error', () => {}); // 'close' follows
    }
    client.on('close', () => connection.requests.end('destroy'));
    target.on('close', () => connection.replies.end('destroy'));
    client.on('close', () => target.destroyed && this.#connections.delete(connection));
    target.on('close', () => client.destroyed && this.#connections.delete(connection));
    this.#update();
    if (this.holdsNew) connection.requests.held = connection.replies.held = true;
  }
}

interface Connection {
  readonly requests: Lane;
  readonly replies: Lane;
  destroy(): void;
}

type End = 'end' | 'destroy';

/** One direction of a connection. */
class Lane {
  /** Asked for each chunk that arrives; true when it has dealt with it. */
  intercept: (chunk: Buffer) => boolean = () => false;
  readonly #to: Socket;
  readonly #queue: { item: Buffer | End; due: number }[] = [];
  readonly #delayMs: () => number;
  #held = false;
  #pumping = false;
  #discarded = false;

  constructor(from: Socket, to: Socket, delayMs: () => number, rewrite = (chunk: Buffer): Buffer => chunk) {
    this.#to = to;
    this.#delayMs = delayMs;
    from.on('data', (chunk: Buffer) => {
      if (!this.intercept(chunk)) this.#put(rewrite(chunk));
    });
    from.on('end', () => this.end('end'));
  }

  get waiting(): boolean {
    return this.#queue.length > 0;
  }

  set held(held: boolean) {
    this.#held = held;
    void this.#pump();
  }

  /** The sending side has ended, or is gone: passed on after what it sent. */
  end(how: End): void {
    this.#put(how);
  }

  discard(): void {
    this.#discarded = true;
    this.#queue.length = 0;
  }

  #put(item: Buffer | End): void {
    if (this.#discarded) return;
    this.#queue.push({ item, due: performance.now() + this.#delayMs() });
    void this.#pump();
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#held && !this.#discarded) {
      const next = this.#queue[0];
      if (next === undefined) break;
      const early = next.due - performance.now();
      if (early > 0) {
        await sleep(early);
        continue; // it may have been held or discarded meanwhile
      }
      this.#queue.shift();
      if (next.item === 'end') this.#to.end();
      else if (next.item === 'destroy') this.#to.destroy();
      else this.#to.write(next.item);
    }
    this.#pumping = false;
  }
}
