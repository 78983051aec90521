/** The check of the documentation itself. */
import { expect } from 'chai';
import { blocksOf, unrunnable } from './blocks.js';
import { matches } from './output.js';

describe('the blocks of a document', () => {
  const fenced = (language: string, ...lines: string[]) => ['```' + language, ...lines, '```', ''].join('\n');

  it('are those of known languages, each with its line, and what comments ask for it', () => {
    const text = [
      '# A title\n',
      '<!-- check: setup shop -->',
      '<!-- check: after done(); -->\n',
      fenced('ts', 'one();', 'two();'),
      fenced('json', '{}'),
      '<!-- check: skip it needs Docker -->\n',
      fenced('sh', 'docker compose up -d'),
    ].join('\n');
    const found = blocksOf('a.md', text).map(({ line, language, code, setup, after, skip }) => {
      return { line, language, code, setup, after, skip };
    });
    expect(found).to.deep.equal([
      { line: 7, language: 'ts', code: 'one();\ntwo();', setup: 'shop', after: 'done();', skip: undefined },
      {
        ...{ line: 18, language: 'sh', code: 'docker compose up -d', setup: undefined, after: '' },
        skip: 'it needs Docker',
      },
    ]);
  });

  it('have the block without a language right below as their output, and no text in between', () => {
    const text = fenced('ts', 'one();') + fenced('', '1') + fenced('ts', 'two();') + 'Then:\n\n' + fenced('', '2');
    expect(blocksOf('a.md', text).map(({ output }) => output)).to.deep.equal(['1', undefined]);
  });

  it('continue the block before, with its setup', () => {
    const text = `<!-- check: setup shop -->\n${fenced('ts', 'one();')}<!-- check: continues -->\n${fenced('ts', 'two();')}`;
    const [first, second] = blocksOf('a.md', text);
    expect(second).to.include({ setup: 'shop', continues: first });
  });

  for (const [what, text] of Object.entries({
    'a comment that is none of its': '<!-- check: skipp -->\n```ts\n```\n',
    'a skip without a reason': '<!-- check: skip -->\n```ts\n```\n',
    'a comment without a block': '<!-- check: setup shop -->\nText.\n',
    'a block without an end': '```ts\none();\n',
  })) {
    it(`refuse ${what}`, () => {
      expect(() => blocksOf('a.md', text)).to.throw('a.md:');
    });
  }

  it('of sh are run if they have harmless commands alone', () => {
    const block = (line: string) => blocksOf('a.md', fenced('sh', line))[0]!;
    expect(unrunnable(block('npx gencache outbox install'))).to.equal(undefined);
    expect(unrunnable(block('rm -r build'))).to.contain('Got "rm -r build"');
  });
});

describe('the output of a block', () => {
  it('is compared whole', () => {
    expect(matches('one\ntwo\n', 'one\ntwo')).to.equal(true);
    expect(matches('one\ntwo\n', 'one')).to.equal(false);
    expect(matches('one\n', 'on.')).to.equal(false);
  });

  it('may have … for any text in a line, and a line of it for any lines', () => {
    expect(matches('pid 7 is up\n', 'pid … is up')).to.equal(true);
    expect(matches('a\nb\nc\n', '…\nc')).to.equal(true);
    expect(matches('c\n', '…\nc')).to.equal(true);
    expect(matches('a\nb\n', '…\nc')).to.equal(false);
    expect(matches('pid 7\nis up\n', 'pid … is up')).to.equal(false);
  });
});
