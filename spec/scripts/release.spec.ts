import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { lend } from '../support/lenders.js';

const ROOT = join(import.meta.dirname, '../..');
const ADDRESS = 'https://github.com/owner/gencache';

describe('the check before a release', () => {
  let folder: string;

  /** A package with the manifest of this one before a release, and documents. */
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'gencache-release-'));
    lend({ what: 'the package of a release', close: () => rmSync(folder, { recursive: true }) });
    mkdirSync(join(folder, 'docs'));
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as object;
    const repository = { type: 'git', url: 'git+https://repository.invalid/gencache.git' };
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, repository }));
    writeFileSync(
      join(folder, 'README.md'),
      'See [all](docs/all.md#first), [how to help](CONTRIBUTING.md) and [Redis](https://redis.io).\n```\n[no](link)\n```\n',
    );
    writeFileSync(join(folder, 'docs/all.md'), '# First\n[Back](../README.md)\n');
  });

  function release(...args: string[]) {
    const tsx = ['--import', join(ROOT, 'node_modules/tsx/dist/esm/index.mjs'), join(ROOT, 'scripts/release.ts')];
    const { status, stderr } = spawnSync('node', [...tsx, ...args], { cwd: folder, encoding: 'utf8' });
    return { status, faults: stderr };
  }

  it('refuses the placeholder in place of an address, and a published package has one', () => {
    expect(release('check')).to.deep.equal({
      status: 1,
      faults:
        '`repository` of package.json must be the address of the repository, but is ' +
        '"git+https://repository.invalid/gencache.git". Run npm run release:address -- https://github.com/OWNER/REPOSITORY.\n',
    });
    expect(release('address', `${ADDRESS}.git`)).to.deep.equal({ status: 0, faults: '' });
    expect(release('check')).to.deep.equal({ status: 0, faults: '' });
    const { repository, homepage, bugs } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      [field: string]: unknown;
    };
    expect({ repository, homepage, bugs }).to.deep.equal({
      repository: { type: 'git', url: `git+${ADDRESS}.git` },
      homepage: `${ADDRESS}#readme`,
      bugs: { url: `${ADDRESS}/issues` },
    });
  });

  it('is what `npm publish` runs first', () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    expect(scripts['prepublishOnly']).to.equal('npm run release:check');
    expect(scripts['release:check']).to.equal('tsx scripts/release.ts check');
  });

  it('refuses a link to a file that the tarball does not have, but for those that the README announces', () => {
    release('address', ADDRESS);
    writeFileSync(join(folder, 'docs/all.md'), '[A script](../scripts/build.ts), [the race](../bench/race/)\n');
    expect(release('check')).to.deep.equal({
      status: 1,
      faults:
        'docs/all.md links to ../scripts/build.ts, which the tarball does not have. Pack it, or name it without a link.\n',
    });
  });

  for (const address of ['', 'gencache', 'http://github.com/owner/gencache', 'https://repository.invalid/gencache']) {
    it(`refuses the address "${address}"`, () => {
      const { status, faults } = release('address', address);
      expect(status).to.equal(1);
      expect(faults).to.match(
        /^The address must be that of a repository, https:\/\/github\.com\/OWNER\/REPOSITORY, but /,
      );
    });
  }
});
