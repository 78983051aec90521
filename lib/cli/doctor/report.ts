import { columns } from '../command.js';
import type { Finding } from './finding.js';
import type { Expected, LadderStanding } from './step.js';

export interface Report {
  readonly cache: string;
  readonly findings: readonly Finding[];
  readonly standing: LadderStanding;
  readonly expected: Expected | undefined;
  /** Whether the step is at least that. */
  readonly reached: boolean;
  /** Nothing is broken, and the expected step is reached. */
  readonly ok: boolean;
}

/** For people: the findings, each with what to do; what is not covered; what to do next; and, last, the step. */
export function toText({ findings, standing, expected, reached, ok }: Report): string {
  const { step, promise, notCovered, next, strict } = standing;
  const rows = findings.flatMap(({ status, check, message, remedy }) => [
    [status, check, message],
    ...(remedy === undefined ? [] : [['', '', `-> ${remedy}`]]),
  ]);
  return [
    columns(rows),
    '',
    ...notCovered.map((writers) => `Not covered: ${writers}.`),
    ...(strict ? strictness(step) : []),
    ...(expected === undefined
      ? []
      : [
          `Expected: step ${expected}, ${reached ? 'met' : 'not met'}${reached && !ok ? ', but see what is broken above' : ''}.`,
        ]),
    `Next: ${next}`,
    `Step ${step === '0' ? '0 or 1' : step}: ${promise}.`,
  ].join('\n');
}

/** What step 4b asks of the others beside Redis: that no event waits for ever. */
function strictness(step: LadderStanding['step']): string[] {
  if (step === 'unknown') return [];
  return step === '3' || step === '4a'
    ? ['Step 4b: commits may be strict, `transaction(..., { strict: true })`; this Redis evicts nothing.']
    : ['Step 4b is not reached: from step 3 on commits may be strict, since this Redis evicts nothing.'];
}

/** For programs, on one line. */
export function toJson({ cache, findings, standing, expected, reached, ok }: Report): string {
  return JSON.stringify({ cache, ok, expected: expected ?? null, reached, ...standing, findings });
}
