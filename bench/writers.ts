import pg from 'pg';
import { ITEMS } from './durable.js';

/** Connections that change one row of a table of `makeItems` a commit, each rows of its own. */
export class Writers {
  readonly #clients: readonly pg.Client[];
  /** How often each has written. */
  readonly #writes: number[];

  private constructor(clients: readonly pg.Client[]) {
    this.#clients = clients;
    this.#writes = clients.map(() => 0);
  }

  static async connect(url: string, count: number, settings = ''): Promise<Writers> {
    const clients = Array.from({ length: count }, () => new pg.Client({ connectionString: url, options: settings }));
    await Promise.all(clients.map((client) => client.connect()));
    return new Writers(clients);
  }

  get count(): number {
    return this.#clients.length;
  }

  /** One UPDATE, in a transaction of its own, prepared before. Client `writer` must have no other under way. */
  async write(table: string, writer: number): Promise<void> {
    const own = ITEMS / this.count;
    const id = 1 + Math.floor(own * writer) + (this.#writes[writer]!++ % Math.floor(own));
    await this.#clients[writer]!.query({
      name: table,
      text: `update ${table} set updated_at = clock_timestamp() where id = $1`,
      values: [id],
    });
  }

  /** As many in all, each client one after the other as fast as it can. */
  async writeMany(table: string, writes: number): Promise<void> {
    let left = writes;
    await Promise.all(
      this.#clients.map(async (_, writer) => {
        while (left-- > 0) await this.write(table, writer);
      }),
    );
  }

  async end(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}
