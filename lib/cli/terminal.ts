/**
 * Where commands write: results to stdout, everything else to stderr, and never a password to either.
 *
 * Messages of drivers, and arguments that are told back to who typed them, may hold a connection's URL. So whatever is
 * written passes here: what stands between `//` and `@` goes, and so does each password that `hide` was told of.
 */
export class Terminal {
  readonly #urls: URL[] = [];
  #shown = redactor();

  /** From now on the passwords in this URL are not written. */
  hide(url: URL): void {
    this.#urls.push(url);
    this.#shown = redactor(...this.#urls);
  }

  out(text: string): void {
    process.stdout.write(`${this.#shown(text)}\n`);
  }

  err(text: string): void {
    process.stderr.write(`${this.#shown(text)}\n`);
  }
}

/** Takes the passwords of these URLs, and what looks like one in any URL, out of texts. */
export function redactor(...urls: readonly URL[]): (text: string) => string {
  const secrets = urls
    .flatMap(passwordsOf)
    .sort((a, b) => b.length - a.length)
    // Whole words: a short one would be given away by the holes it leaves in others.
    .map((secret) => new RegExp(`(?<![A-Za-z0-9])${escaped(secret)}(?![A-Za-z0-9])`, 'g'));
  return (text) =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text).replaceAll(/\/\/[^\s'"]*@/g, '//***@');
}

/** As written and as meant. One that is also a name in the URL would be given away by hiding each mention of the name. */
function passwordsOf(url: URL): string[] {
  const names = [url.username, url.hostname, url.pathname.slice(1)].map(decoded);
  return [url.password, decoded(url.password), url.searchParams.get('password') ?? ''].filter(
    (password) => password !== '' && !names.includes(password),
  );
}

/** What is no encoded character stays, as drivers have it. */
function decoded(text: string): string {
  return text.replaceAll(/(?:%[0-9a-f]{2})+/gi, (encoded) => {
    try {
      return decodeURIComponent(encoded);
    } catch {
      return encoded;
    }
  });
}

function escaped(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`);
}
