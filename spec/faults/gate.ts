/**
 * A TCP proxy that can stop a program exactly between two of its steps, without a hook in the program.
 *
 *     program -> [BEGIN] [UPDATE] [COMMIT] -> gate -> server
 *
 * A step begins when its request arrives here. `stopAt` holds back that request and all later ones of its connection: the
 * program has done everything before the step, and nothing of the step. Then a spec may kill the program, whose held
 * requests are never sent, or stop and continue it, whose held requests are sent late.
 *
 * The held requests of a client that goes away are dropped.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { deferred } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { freePort } from '../support/servers/free-port.js';

const HOST = '127.0.0.1';

/** A request that is held back until `release`. */
export interface Stop {
  readonly reached: Promise<void>;
  release(): void;
}

interface Hook {
  readonly request: RegExp;
  /** Number of such requests that pass first. */
  before: number;
  run(): Promise<void>;
}

export class Gate {
  readonly port: number;
  /** The port to which new connections lead. */
  targetPort: number;
  /** Changes the replies of the server, chunk by chunk. */
  rewrite: ((reply: string) => string) | undefined;
  readonly #connections = new Set<() => void>();
  readonly #hooks = new Set<Hook>();
  readonly #server: Server;

  /** Opens a gate; the end of the spec closes it. */
  static async open(targetPort: number): Promise<Gate> {
    const gate = new Gate(await freePort(), targetPort);
    gate.#server.listen(gate.port, HOST);
    await once(gate.#server, 'listening');
    lend({
      what: `the gate to port ${targetPort}`,
      sockets: () => 2 * gate.#connections.size,
      close: () => gate.#close(),
    });
    return gate;
  }

  private constructor(port: number, targetPort: number) {
    this.port = port;
    this.targetPort = targetPort;
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#connect(client));
  }

  /** Calls `run` once, when the nth such request arrives, before the gate passes it on. */
  before(request: RegExp, run: () => Promise<void>, nth = 1): void {
    this.#hooks.add({ request, before: nth - 1, run });
  }

  stopAt(request: RegExp, nth = 1): Stop {
    const reached = deferred();
    const gate = deferred();
    const run = () => {
      reached.resolve();
      return gate.promise;
    };
    this.before(request, run, nth);
    return { reached: reached.promise, release: () => gate.resolve() };
  }

  /** Breaks every connection, and drops the held requests. */
  cut(): void {
    for (const destroy of this.#connections) destroy();
  }

  /** A failover as clients see it: connections break, and new ones lead to another server. */
  leadTo(targetPort: number): void {
    this.targetPort = targetPort;
    this.cut();
  }

  async #close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.cut();
    await closed;
  }

  #connect(client: Socket): void {
    const target = connect({ port: this.targetPort, host: HOST, allowHalfOpen: true });
    const destroy = () => {
      this.#connections.delete(destroy);
      client.destroy();
      target.destroy();
    };
    this.#connections.add(destroy);
    const queue: Buffer[] = [];
    let ended = false;
    let passing = false;
    const pass = async () => {
      if (passing) return;
      passing = true;
      for (let chunk = queue.shift(); chunk !== undefined; chunk = queue.shift()) {
        await this.#hooked(chunk);
        if (target.destroyed) return;
        target.write(chunk);
      }
      passing = false;
      if (ended) target.end();
    };
    for (const socket of [client, target]) {
      socket.setNoDelay(true);
      socket.on('error', destroy);
      socket.on('close', destroy);
    }
    client.on('data', (chunk: Buffer) => {
      queue.push(chunk);
      void pass();
    });
    client.on('end', () => {
      ended = true;
      if (passing) destroy();
      else target.end();
    });
    target.on('data', (chunk: Buffer) => {
      client.write(this.rewrite === undefined ? chunk : Buffer.from(this.rewrite(chunk.toString('latin1')), 'latin1'));
    });
    target.on('end', () => client.end());
  }

  /** Resolves when no hook holds this chunk any more. */
  async #hooked(chunk: Buffer): Promise<void> {
    if (this.#hooks.size === 0) return;
    const text = chunk.toString('latin1');
    for (const hook of this.#hooks) {
      if (!hook.request.test(text) || hook.before-- > 0) continue;
      this.#hooks.delete(hook);
      await hook.run();
    }
  }
}
