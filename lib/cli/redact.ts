/** The address of a server, and its password as the driver understands it. */
export interface ServerAddress {
  readonly address: string;
  readonly password?: string | undefined;
}

/**
 * A function that takes passwords out of texts: those of these addresses, and those of any URL in a text.
 *
 * A password is matched as a whole word: a short one would be given away by the holes that it leaves in other words.
 */
export function redactor(...addresses: readonly ServerAddress[]): (text: string) => string {
  const secrets = addresses
    .flatMap(passwordsOf)
    .sort((a, b) => b.length - a.length)
    .map((secret) => new RegExp(`(?<![A-Za-z0-9])${escaped(secret)}(?![A-Za-z0-9])`, 'g'));
  return (text) =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text).replaceAll(/\/\/[^\s'"]*@/g, '//***@');
}

/** The passwords of an address, as written and decoded. A password that is also a name there would be given away by its holes. */
function passwordsOf({ address, password = '' }: ServerAddress): string[] {
  const url = urlOf(address);
  const names = url === undefined ? [] : [url.username, url.hostname, url.pathname.slice(1)].map(decoded);
  const written =
    url === undefined ? [] : [url.password, decoded(url.password), url.searchParams.get('password') ?? ''];
  return [...new Set([password, ...written])].filter((each) => each !== '' && !names.includes(each));
}

/** Drivers take a URL without a host, which is then a parameter; undefined for the path of a socket. */
function urlOf(address: string): URL | undefined {
  const text = URL.canParse(address) ? address : address.replace('@/', '@host/');
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** Decodes as drivers do: an invalid sequence stays. */
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
