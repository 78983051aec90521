/**
 * A function that takes passwords out of texts: those of these URLs, and those of any URL in a text.
 *
 * A password is matched as a whole word: a short one would be given away by the holes that it leaves in other words.
 */
export function redactor(...urls: readonly URL[]): (text: string) => string {
  const secrets = urls
    .flatMap(passwordsOf)
    .sort((a, b) => b.length - a.length)
    .map((secret) => new RegExp(`(?<![A-Za-z0-9])${escaped(secret)}(?![A-Za-z0-9])`, 'g'));
  return (text) =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text).replaceAll(/\/\/[^\s'"]*@/g, '//***@');
}

/** The passwords of a URL, as written and decoded. A password that is also a name in the URL would be given away by its holes. */
function passwordsOf(url: URL): string[] {
  const names = [url.username, url.hostname, url.pathname.slice(1)].map(decoded);
  return [url.password, decoded(url.password), url.searchParams.get('password') ?? ''].filter(
    (password) => password !== '' && !names.includes(password),
  );
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
