/**
 * What npm shows of the package, before a release:
 *
 *     npm run release:address -- https://github.com/OWNER/REPOSITORY   writes the address into package.json
 *     npm run release:check                                            ends with 1 if the package must not be published
 *
 * `npm publish` runs the check first (`prepublishOnly`). It refuses a placeholder in place of the repository's address,
 * and a link of a packed document to a file that the tarball does not have: npm's site leads such a link to the
 * repository, and in node_modules it leads nowhere. Runs in the folder of package.json.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { posix } from 'node:path';

/** RFC 2606 keeps this top-level domain from ever having an address. */
const PLACEHOLDER = 'https://repository.invalid/gencache';
/** Links that lead out of the tarball on purpose: the README says that the repository alone has them. */
const REPOSITORY_ONLY = ['CONTRIBUTING.md', 'bench/race/', 'docs/api/'];

interface Manifest {
  repository: { type: string; url: string };
  homepage: string;
  bugs: { url: string };
}

const [command, argument] = process.argv.slice(2);
if (command === 'address') writeAddress(argument);
else if (command === 'check') check();
else fail([`The command must be address or check, but got ${command ?? 'none'}.`]);

function writeAddress(given = ''): void {
  const address = given.replace(/(?:\.git)?\/?$/, '');
  if (!/^https:\/\/[\w.-]+(?:\/[\w.~-]+)+$/.test(address) || address.includes('.invalid/')) {
    fail([`The address must be that of a repository, https://github.com/OWNER/REPOSITORY, but got "${given}".`]);
  }
  const text = readFileSync('package.json', 'utf8');
  const manifest = { ...(JSON.parse(text) as Manifest), ...fieldsOf(address) };
  writeFileSync('package.json', `${JSON.stringify(manifest, null, 2)}\n`);
}

function check(): void {
  const faults = [...addressFaults(), ...linkFaults()];
  if (faults.length > 0) fail(faults);
  process.stdout.write('package.json has an address, and each link of the documents leads to a packed file.\n');
}

function addressFaults(): string[] {
  const { repository, homepage, bugs } = JSON.parse(readFileSync('package.json', 'utf8')) as Partial<Manifest>;
  const address = /^git\+(https:.*)\.git$/.exec(repository?.url ?? '')?.[1];
  if (address === undefined || address === PLACEHOLDER) {
    return [
      `\`repository\` of package.json must be the address of the repository, but is ${JSON.stringify(repository?.url)}. ` +
        'Run npm run release:address -- https://github.com/OWNER/REPOSITORY.',
    ];
  }
  const wanted = fieldsOf(address);
  return homepage === wanted.homepage && bugs?.url === wanted.bugs.url
    ? []
    : [
        `\`homepage\` and \`bugs\` of package.json must be those of ${address}. Run npm run release:address -- ${address}.`,
      ];
}

function fieldsOf(address: string): Manifest {
  return {
    repository: { type: 'git', url: `git+${address}.git` },
    homepage: `${address}#readme`,
    bugs: { url: `${address}/issues` },
  };
}

function linkFaults(): string[] {
  const packed = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { encoding: 'utf8' }),
  ) as [{ files: { path: string }[] }];
  const paths = packed[0].files.map(({ path }) => path);
  return paths
    .filter((path) => path.endsWith('.md'))
    .flatMap((document) =>
      targetsOf(readFileSync(document, 'utf8')).flatMap((target) => {
        if (target.startsWith(PLACEHOLDER)) return [`${document} links to the placeholder, ${target}.`];
        if (/^\w+:/.test(target)) return [];
        const path = posix.join(posix.dirname(document), target);
        const isThere = paths.some((there) => there === path || there.startsWith(`${path.replace(/\/?$/, '')}/`));
        return isThere || REPOSITORY_ONLY.some((known) => path.startsWith(known))
          ? []
          : [`${document} links to ${target}, which the tarball does not have. Pack it, or name it without a link.`];
      }),
    );
}

/** The targets of a document's links, without the headings in them, outside of code. */
function targetsOf(text: string): string[] {
  const prose = text.replaceAll(/^(```+)[^]*?^\1$/gm, '').replaceAll(/(`+)[^]*?\1/g, '');
  return [...prose.matchAll(/\]\(([^()\s#]+)[^()]*\)/g)].map(([, target]) => target!);
}

function fail(faults: readonly string[]): never {
  process.stderr.write(`${faults.join('\n')}\n`);
  process.exit(1);
}
