/**
 * Which codec for cached values? Fidelity first (a value comes back identical or is refused), then speed, then
 * size. Prints the table in the header of lib/codec/codec.ts. Run from bench/: `tsx codec/compare.ts`.
 *
 * Speed is measured on five workflows with one Date, on the same with five, and on the same without; after the
 * fidelity cases, so that the code has met other shapes than those.
 */
import fc from 'fast-check';

import { candidates, type Candidate } from './candidates.js';
import { CASES } from './cases.js';
import { identical } from './identical.js';

const workflows = (dates: number): unknown =>
  Array.from({ length: 5 }, (_, index) => ({
    id: 1000 + index,
    name: `Workflow number ${index}`,
    environmentId: index % 2 === 0 ? null : 7,
    enabled: true,
    conditions: [{ field: 'severity', op: '>=', value: 3 }],
    ...(index < dates ? { updatedAt: new Date(1_790_000_000_000 + index) } : {}),
  }));

const anything = fc.anything({
  withBigInt: true,
  withDate: true,
  withMap: true,
  withSet: true,
  withSparseArray: true,
  withTypedArray: true,
  withUnicodeString: true,
});
const RANDOM = fc.sample(anything, { seed: 7, numRuns: 5_000 });

type Outcome = 'same' | 'refused' | 'changed';

function tryOne({ encode, decode }: Candidate, value: unknown): Outcome {
  let bytes: Buffer;
  try {
    bytes = Buffer.from(encode(value));
  } catch {
    return 'refused';
  }
  try {
    const back = decode(bytes);
    // A client reuses the memory of a reply: what still reads it changes now.
    bytes.fill(0);
    return identical(value, back) ? 'same' : 'changed';
  } catch {
    return 'changed';
  }
}

// Not named in the call, so that the library type-checks without the dependencies of its benchmarks.
const MITATA: string = 'mitata';
const { measure } = (await import(MITATA)) as { measure(run: () => unknown): Promise<{ p50: number }> };

const DATES = [1, 5, 0] as const;
const ROUNDS = 5;

function fidelity(candidate: Candidate): string[] {
  const changed = Object.keys(CASES).filter((name) => tryOne(candidate, CASES[name]!()) === 'changed');
  if (changed.length > 0) console.error(`${candidate.name} changes: ${changed.join('; ')}`);
  const random = RANDOM.map((value) => tryOne(candidate, value));
  return [String(changed.length), String(random.filter((outcome) => outcome === 'changed').length)];
}

interface Timing {
  readonly run: () => unknown;
  best: number;
}

function timings({ encode, decode }: Candidate): (Timing | number)[] {
  return DATES.flatMap((dates) => {
    const value = workflows(dates);
    const bytes = Buffer.from(encode(value));
    const timing = (run: () => unknown): Timing => ({ run, best: Infinity });
    return [timing(() => encode(value)), timing(() => decode(bytes)), bytes.length];
  });
}

const rows = (await candidates()).map((each) => ({
  name: each.name,
  changed: fidelity(each),
  cells: timings(each),
}));

// Candidates take turns, and the quietest round counts: other work on the machine only ever adds.
for (let round = 0; round < ROUNDS; round++) {
  for (const { cells } of rows) {
    for (const cell of cells) {
      if (typeof cell !== 'number') cell.best = Math.min(cell.best, (await measure(cell.run)).p50);
    }
  }
}

console.log(
  `${Object.keys(CASES).length} cases, ${RANDOM.length} random values; us and bytes with ${DATES.join(', ')} Dates`,
);
console.log(['codec', 'cases', 'random', ...DATES.flatMap(() => ['enc', 'dec', 'bytes'])].join(' | '));
for (const { name, changed, cells } of rows) {
  const written = cells.map((cell) => (typeof cell === 'number' ? String(cell) : (cell.best / 1000).toFixed(1)));
  console.log([name, ...changed, ...written].join(' | '));
}
