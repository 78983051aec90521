import { runProgram, type Program } from '../support-specs/programs/run.js';
import { Gate, type Stop } from './gate.js';
import type { Step } from './steps.js';

/** The servers, the schema and the cache of a program. */
export interface Place {
  readonly redis: string;
  readonly postgres: string;
  readonly schema: string;
  readonly cache: string;
}

/** A process that reaches each server through a gate of its own. */
export class GatedProgram {
  readonly gates: Readonly<Record<Step['server'], Gate>>;
  #program: Program | undefined;

  static async open(ports: Readonly<Record<Step['server'], number>>): Promise<GatedProgram> {
    return new GatedProgram({ redis: await Gate.open(ports.redis), postgres: await Gate.open(ports.postgres) });
  }

  private constructor(gates: GatedProgram['gates']) {
    this.gates = gates;
  }

  /** Runs the program; the end of the spec kills it. */
  run(file: string, { schema, cache }: Pick<Place, 'schema' | 'cache'>, args: object): void {
    const place: Place = {
      redis: `redis://127.0.0.1:${this.gates.redis.port}`,
      postgres: `postgres://postgres@127.0.0.1:${this.gates.postgres.port}/postgres`,
      schema,
      cache,
    };
    this.#program = runProgram(`spec/faults/programs/${file}.ts`, [JSON.stringify({ place, ...args })]);
  }

  stopAt({ server, request, nth }: Step): Stop {
    return this.gates[server].stopAt(request, nth);
  }

  before({ server, request, nth }: Step, run: () => Promise<void>): void {
    this.gates[server].before(request, run, nth);
  }

  async line<T>(): Promise<T> {
    return JSON.parse(await this.#program!.line()) as T;
  }

  /** kill -9: its held requests are never sent. */
  async kill(): Promise<void> {
    this.#program!.child.kill('SIGKILL');
    await this.#program!.ended;
    for (const gate of Object.values(this.gates)) gate.cut();
  }

  /** SIGSTOP: its connections stay open. */
  suspend(): void {
    this.#program!.child.kill('SIGSTOP');
  }

  /** SIGCONT. */
  resume(): void {
    this.#program!.child.kill('SIGCONT');
  }
}
