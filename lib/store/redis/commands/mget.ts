import { Command } from 'ioredis';

/**
 * MGET of keys that are ASCII, as all of a cache's are, with replies as bytes.
 *
 * What ioredis does for any command (flatten, stringify and measure each argument) costs a read of four keys a tenth
 * of its round trip, and a batch of 200 entries 0.07 of its. ASCII has as many bytes as characters.
 */
export class Mget extends Command {
  readonly #keys: readonly string[];

  constructor(keys: readonly string[]) {
    super('mget', [], { replyEncoding: null });
    this.#keys = keys;
  }

  override toWritable(): string {
    let text = `*${this.#keys.length + 1}\r\n$4\r\nMGET\r\n`;
    for (const key of this.#keys) text += `$${key.length}\r\n${key}\r\n`;
    return text;
  }
}
