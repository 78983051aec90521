/** Every code block of README.md and docs/*.md does what it says: it compiles, runs, and prints what stands below it. */
import { expect } from 'chai';
import { type Block, blocksOf, documents, unrunnable } from './blocks.js';
import { compileAll, type Complaints } from './compile.js';
import { matches } from './output.js';
import { Runner, type Run } from './runner.js';

/** `DOCS=errors`: only the documents whose name has this. */
const WANTED = process.env['DOCS'] ?? '';
const LANES = 3;

const byDocument = new Map(
  documents()
    .filter((file) => file.includes(WANTED))
    .map((file) => [file, blocksOf(file)]),
);
const all = [...byDocument.values()].flat();
const toRun = all.filter(({ skip }) => skip === undefined);

describe('the code blocks of the documentation', () => {
  let complaints: Complaints;
  let runner: Runner;
  let runs: Map<Block, Promise<Run>>;

  before(async () => {
    complaints = compileAll(toRun);
    runner = await Runner.start(LANES);
    const sound = toRun.filter((block) => !complaints.has(block) && unrunnable(block) === undefined);
    runs = runner.runAll(sound);
  });

  after(async () => {
    await runner?.stop();
    const skipped = all.filter(({ skip }) => skip !== undefined);
    console.log(`\n${all.length} blocks: ${toRun.length} run, ${skipped.length} skipped`);
    for (const { file, line, skip } of skipped) console.log(`  ${file}:${line}: ${skip}`);
  });

  for (const [file, blocks] of byDocument) {
    describe(file, () => {
      for (const block of blocks) {
        const title = `line ${block.line}, ${block.language}, ${block.output === undefined ? 'runs' : 'prints what stands below it'}`;
        if (block.skip !== undefined) {
          it.skip(`line ${block.line}, ${block.language}: ${block.skip}`);
          continue;
        }
        it(title, async function () {
          expect(unrunnable(block)).to.equal(undefined);
          expect(complaints.get(block) ?? [], 'what the compiler says').to.deep.equal([]);
          const { code, stdout, printed, durationMs } = await runs.get(block)!;
          if (code !== 0) throw new Error(`${file}:${block.line} ended with ${code}. It printed:\n${printed}`);
          if (block.output !== undefined && !matches(stdout, block.output)) {
            expect(stdout.trimEnd(), `what ${file}:${block.line} prints`).to.equal(block.output);
          }
          if (process.env['TIMES'] !== undefined) this.test!.title += ` (${Math.round(durationMs)} ms)`;
        });
      }
    });
  }
});
