/** Comments cite a rule as `docs/protocol.md, rule 9`: each citation leads to a rule. */
import { expect } from 'chai';
import { filesBelow, textOf } from './sources.js';

const FOLDERS = ['lib', 'spec', 'migrations', 'demo'];

/** A number, or several: `rule 3`, `rules 9 to 11`, `rules 6, 7 and 10`. A comment may break the line anywhere between. */
const GAP = String.raw`(?:\s|\*|//)+`;
const NUMBERS = String.raw`\d+[a-z]?(?:(?:,|${GAP}(?:to|and))${GAP}\d+[a-z]?)*`;
const CITATION = new RegExp(
  String.raw`(?<document>docs/protocol\.md,${GAP})?\brules?${GAP}(?<numbers>${NUMBERS})`,
  'gi',
);

interface Citation {
  readonly text: string;
  readonly numbers: readonly string[];
  readonly namesDocument: boolean;
}

function citationsIn(text: string): Citation[] {
  return [...text.matchAll(CITATION)].map(({ 0: cited, groups }) => ({
    text: cited.replaceAll(new RegExp(GAP, 'g'), ' '),
    numbers: groups!.numbers!.match(/\d+[a-z]?/g)!,
    namesDocument: groups!.document !== undefined,
  }));
}

/** This file shows some that lead nowhere. */
const SOURCES = FOLDERS.flatMap((folder) => filesBelow(folder, '.ts')).filter(
  (file) => !file.startsWith('spec/architecture'),
);
const CITATIONS = SOURCES.flatMap((file) => citationsIn(textOf(file)).map((citation) => ({ file, ...citation })));
const RULES = new Set(
  [...textOf('docs/protocol.md').matchAll(/<a id="rule-(\w+)"><\/a>/g)].map(([, number]) => number!),
);

describe('the rules of docs/protocol.md', () => {
  it('are in the order of their numbers, a letter after its number, each with its anchor before its heading', () => {
    const headings = [...textOf('docs/protocol.md').matchAll(/<a id="rule-(\w+)"><\/a>\n\n## Rule (\w+): /g)];
    expect(headings.map(([, anchor]) => anchor)).to.deep.equal(headings.map(([, , number]) => number));
    const rules = [...RULES];
    const inOrder = rules.toSorted((a, b) => parseInt(a, 10) - parseInt(b, 10) || (a < b ? -1 : 1));
    expect(rules).to.deep.equal(inOrder);
  });

  it('are cited with the name of that document, and exist', () => {
    const broken = CITATIONS.filter(
      ({ numbers, namesDocument }) => !namesDocument || numbers.some((number) => !RULES.has(number)),
    );
    expect(broken.map(({ file, text }) => `${file}: ${text}`)).to.deep.equal([]);
  });
});

describe('the reading of citations', () => {
  it('finds them in each form, across lines of a comment too', () => {
    const text = `
// (docs/protocol.md, rule 3)
 * see docs/protocol.md, rules 6, 7 and 10. As rules 9 to
 * 11 of docs/protocol.md,
 * rule 12a has it; docs/protocol.md, rule
 * 8). Rule 4: and a ruler 5, and no rule.
`;
    expect(citationsIn(text)).to.deep.equal([
      { text: 'docs/protocol.md, rule 3', numbers: ['3'], namesDocument: true },
      { text: 'docs/protocol.md, rules 6, 7 and 10', numbers: ['6', '7', '10'], namesDocument: true },
      { text: 'rules 9 to 11', numbers: ['9', '11'], namesDocument: false },
      { text: 'docs/protocol.md, rule 12a', numbers: ['12a'], namesDocument: true },
      { text: 'docs/protocol.md, rule 8', numbers: ['8'], namesDocument: true },
      { text: 'Rule 4', numbers: ['4'], namesDocument: false },
    ]);
  });
});
