/** Reads and rewrites the commands and replies of one connection to a Redis, however the network cuts them. */

/** What a host does with a command in place of passing it on as it is. */
export type Intervention =
  /** The client gets this reply, of the whole of RESP; Redis never sees the command. */
  | { readonly reply: string }
  /** Redis gets another command. */
  | { readonly command: readonly string[] }
  /** The client gets what this makes of Redis' reply. */
  | { readonly rewrite: (reply: string) => string };

/** A host of Redis that is not quite Redis: asked for each command. */
export type Host = (command: readonly string[]) => Intervention | undefined;

export class HostedConnection {
  readonly #host: Host;
  readonly #requests = new Messages();
  readonly #replies = new Messages();
  /** What becomes of the replies that are due, in their order. */
  readonly #due: ((reply: string) => string)[] = [];

  constructor(host: Host) {
    this.#host = host;
  }

  request(chunk: Buffer): Buffer {
    return joined(this.#requests.add(chunk).map((request) => this.#intervene(request)));
  }

  reply(chunk: Buffer): Buffer {
    // A subscribed client sends no command, and the messages that it gets answer none.
    return joined(this.#replies.add(chunk).map((reply) => this.#due.shift()?.(reply) ?? reply));
  }

  #intervene(request: string): string {
    const intervention = this.#host(parseCommand(request)) ?? { rewrite: (reply: string) => reply };
    if ('rewrite' in intervention) this.#due.push(intervention.rewrite);
    else this.#due.push((reply) => ('reply' in intervention ? intervention.reply : reply));
    // Redis answers a PING in its place, so that the reply keeps its turn.
    if ('reply' in intervention) return formatCommand(['PING']);
    return 'command' in intervention ? formatCommand(intervention.command) : request;
  }
}

/** A bulk string. */
export function bulk(text: string): string {
  return `$${Buffer.byteLength(text, 'latin1')}\r\n${text}\r\n`;
}

function formatCommand(command: readonly string[]): string {
  return `*${command.length}\r\n${command.map(bulk).join('')}`;
}

/** The arguments of a command, which is an array of bulk strings. */
function parseCommand(request: string): string[] {
  const command: string[] = [];
  for (let at = request.indexOf('\r\n') + 2; at < request.length;) {
    const line = request.indexOf('\r\n', at);
    const length = Number(request.slice(at + 1, line));
    command.push(request.slice(line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
  return command;
}

function joined(messages: readonly string[]): Buffer {
  return Buffer.from(messages.join(''), 'latin1');
}

/** Cuts a stream of RESP into messages. */
class Messages {
  #rest = '';

  /** The messages that end in this chunk. */
  add(chunk: Buffer): string[] {
    const text = this.#rest + chunk.toString('latin1');
    const messages: string[] = [];
    let from = 0;
    for (let end = endOf(text, 0); end !== undefined; end = endOf(text, from)) {
      messages.push(text.slice(from, end));
      from = end;
    }
    this.#rest = text.slice(from);
    return messages;
  }
}

/** Where the value that begins at `at` ends; undefined if it goes on beyond the text. */
function endOf(text: string, at: number): number | undefined {
  const line = text.indexOf('\r\n', at);
  if (line === -1) return undefined;
  const type = text[at]!;
  const length = Number(text.slice(at + 1, line));
  let end: number | undefined = line + 2;
  if ('$=!'.includes(type)) {
    if (length >= 0) end += length + 2;
    return end <= text.length ? end : undefined;
  }
  const items = '*~>'.includes(type) ? length : type === '%' ? 2 * length : 0;
  for (let item = 0; item < items && end !== undefined; item++) end = endOf(text, end);
  return end;
}
