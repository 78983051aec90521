/** Every relative link of the documentation leads to a file that is there, and to a heading of it. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { expect } from 'chai';
import { documents, ROOT } from './blocks.js';

const DOCUMENTS = [...documents(), 'CONTRIBUTING.md', 'CAVEATS.md', 'CHANGELOG.md', 'bench/README.md'];
/** Made by `npm run docs`, and not in the repository. */
const GENERATED = /^docs\/api(?:\/|$)/;

describe('the links of the documentation', () => {
  for (const file of DOCUMENTS) {
    it(`lead somewhere from ${file}`, () => {
      expect(broken(file)).to.deep.equal([]);
    });
  }
});

describe('a link', () => {
  it('leads to a heading by what GitHub makes of its text', () => {
    const text = '# One\n## `fetch(ids)`: a call\n### One\n```\n# no heading\n```\n<a id="own"></a>\n';
    expect([...anchorsOf(text)]).to.deep.equal(['one', 'fetchids-a-call', 'one-1', 'own']);
  });

  it('is found in text, and not in code', () => {
    const text = 'a [b](c.md#d "e") ![f](g.png)\n```\n[h](i)\n```\n`[j](k)` [l](https://m)\n[n]: o.md\n';
    expect(linksOf(text)).to.deep.equal(['c.md#d', 'g.png', 'https://m', 'o.md']);
  });
});

function broken(file: string): string[] {
  return linksOf(readFileSync(join(ROOT, file), 'utf8'))
    .filter((link) => !/^[a-z]+:/.test(link))
    .flatMap((link) => {
      const [path, anchor] = link.split('#') as [string, string | undefined];
      const target = path === '' ? file : relative(ROOT, join(ROOT, dirname(file), decodeURIComponent(path)));
      if (GENERATED.test(target)) return [];
      if (!existsSync(join(ROOT, target))) return [`${link}: there is no ${target}`];
      if (anchor === undefined || !target.endsWith('.md')) return [];
      const there = anchorsOf(readFileSync(join(ROOT, target), 'utf8')).has(anchor);
      return there ? [] : [`${link}: ${target} has no such heading`];
    });
}

function linksOf(text: string): string[] {
  const prose = withoutCode(text);
  const inline = [...prose.matchAll(/\]\(([^()\s]+(?:\([^()]*\))?)(?:\s+"[^"]*")?\)/g)];
  const references = [...prose.matchAll(/^\[[^\]]+\]:\s+(\S+)/gm)];
  return [...inline, ...references].map(([, link]) => link!);
}

function withoutCode(text: string): string {
  return text.replaceAll(/^(```+)[^]*?^\1$/gm, '').replaceAll(/(`+)[^]*?\1/g, '');
}

/** As GitHub makes them: https://github.com/gjtorikian/html-pipeline, its table of contents filter. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  const times = new Map<string, number>();
  const prose = text.replaceAll(/^(```+)[^]*?^\1$/gm, '');
  for (const [, heading, own] of prose.matchAll(/^#{1,6}\s+(.+?)\s*#*$|<a (?:id|name)="([^"]+)">/gm)) {
    if (own !== undefined) {
      anchors.add(own);
      continue;
    }
    const words = heading!.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const slug = words.replaceAll(/[^\p{L}\p{N}\p{M}\p{Pc} -]/gu, '').replaceAll(' ', '-');
    const before = times.get(slug) ?? 0;
    times.set(slug, before + 1);
    anchors.add(before === 0 ? slug : `${slug}-${before}`);
  }
  return anchors;
}
