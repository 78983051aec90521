/** What the documents name exists: files and folders, other documents, and their headings. */
import { expect } from 'chai';
import { existsSync } from 'node:fs';
import { join, posix } from 'node:path';
import { filesBelow, ROOT, textOf } from './sources.js';

const DOCUMENTS = [
  ...['README.md', 'CAVEATS.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'bench/README.md'],
  ...filesBelow('docs', '.md').filter((file) => !file.startsWith('docs/api/')),
];
/** A tool makes them. */
const GENERATED = ['docs/api/'];

/** A path of the repository, in backquotes. */
const PATH = /`((?:lib|spec|docs|migrations|bench|demo|\.ci)\/[\w./-]*)`/g;
/** A link that is no URL. */
const LINK = /\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)/g;

describe('the documents', () => {
  for (const document of DOCUMENTS) {
    it(`${document} names files and folders that exist`, () => {
      const paths = [...textOf(document).matchAll(PATH)].map(([, path]) => path!);
      const missing = paths.filter((path) => !existsSync(join(ROOT, path)) && !isGenerated(path));
      expect(missing).to.deep.equal([]);
    });

    it(`${document} links to files and headings that exist`, () => {
      const broken = [...textOf(document).matchAll(LINK)].filter(([, path, anchor]) => {
        const target = path === '' ? document : posix.join(posix.dirname(document), path!);
        if (isGenerated(target)) return false;
        if (!existsSync(join(ROOT, target))) return true;
        return anchor !== undefined && !anchorsOf(target).has(anchor);
      });
      expect(broken.map(([link]) => link)).to.deep.equal([]);
    });
  }
});

/** Those that a document gives itself, and those that GitHub makes of its headings. */
function anchorsOf(document: string): Set<string> {
  const text = textOf(document);
  const given = [...text.matchAll(/<a id="([^"]+)"><\/a>/g)].map(([, id]) => id!);
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
  return new Set([...given, ...headings]);
}

function isGenerated(path: string): boolean {
  return GENERATED.some((folder) => path.startsWith(folder));
}
