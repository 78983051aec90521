import { createHash } from 'node:crypto';
import { Command, type Redis } from 'ioredis';

type Argument = string | number;

/**
 * A script whose keys and arguments are ASCII, which is sent as ioredis sends scripts: as text with the first call on a
 * connection, by its SHA from then on. It serializes the command, as `Mget` does and for the same reason.
 */
export class AsciiScript {
  readonly text: string;
  /** The serialized command up to its keys. */
  readonly byText: string;
  readonly bySha: string;
  /** The sockets that have had the text. */
  readonly knownTo = new WeakSet<object>();

  constructor(text: string) {
    this.text = text;
    this.byText = `$4\r\nEVAL\r\n$${text.length}\r\n${text}\r\n`;
    this.bySha = `$7\r\nEVALSHA\r\n$40\r\n${createHash('sha1').update(text).digest('hex')}\r\n`;
  }

  /** `args`: the keys, then the arguments. A server that has forgotten the script gets its text. */
  run(client: Redis, keys: number, args: readonly Argument[]): Promise<unknown> {
    const reply = client.sendCommand(new ScriptCommand(this, keys, args)) as Promise<unknown>;
    return reply.catch((error: Error) => {
      if (!error.message.startsWith('NOSCRIPT')) throw error;
      return client.eval(this.text, keys, ...args);
    });
  }
}

class ScriptCommand extends Command {
  readonly #script: AsciiScript;
  readonly #keys: number;
  readonly #args: readonly Argument[];

  constructor(script: AsciiScript, keys: number, args: readonly Argument[]) {
    super('evalsha');
    this.#script = script;
    this.#keys = keys;
    this.#args = args;
  }

  override toWritable(socket: object): string {
    const { knownTo, bySha, byText } = this.#script;
    const isKnown = knownTo.has(socket);
    if (!isKnown) knownTo.add(socket);
    const number = String(this.#keys);
    let text = `*${this.#args.length + 3}\r\n${isKnown ? bySha : byText}$${number.length}\r\n${number}\r\n`;
    for (const arg of this.#args) {
      const ascii = String(arg);
      text += `$${ascii.length}\r\n${ascii}\r\n`;
    }
    return text;
  }
}
