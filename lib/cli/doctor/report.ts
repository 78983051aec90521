import { columns } from '../columns.js';
import type { Finding } from './finding.js';
import type { ExpectedStep, LadderStanding } from './ladder.js';

export interface DoctorReport {
  readonly cache: string;
  readonly findings: readonly Finding[];
  readonly standing: LadderStanding;
  readonly expected: ExpectedStep | undefined;
  /** Whether the step is at least the expected one. */
  readonly reached: boolean;
  /** No finding is broken, and the expected step is reached. */
  readonly ok: boolean;
}

/** For people: the findings with their remedies, the changes not covered, the way to the next step, and the step. */
export function toText({ findings, standing, expected, reached, ok }: DoctorReport): string {
  const { step, promise, notCovered, next, strict } = standing;
  const rows = findings.flatMap(({ status, check, message, remedy }) => [
    [status, check, message],
    ...(remedy === undefined ? [] : [['', '', `-> ${remedy}`]]),
  ]);
  return [
    columns(rows),
    '',
    ...notCovered.map((changes) => `Not covered: ${changes}.`),
    ...(strict ? strictLines(step) : []),
    ...(expected === undefined
      ? []
      : [
          `Expected: step ${expected}, ${reached ? 'met' : 'not met'}${reached && !ok ? ', but a finding above is broken' : ''}.`,
        ]),
    `Next: ${next}`,
    `Step ${step === '0' ? '0 or 1' : step}: ${promise}.`,
  ].join('\n');
}

/**
 * Strict commits work on step 2 for what `{ trx }` records. Step 4b covers every change of a table, so it builds on
 * step 3.
 */
function strictLines(step: LadderStanding['step']): string[] {
  if (step === 'unknown') return [];
  return step === '3' || step === '4a'
    ? ['Step 4b: commits may be strict, `transaction(..., { strict: true })`; this Redis evicts nothing.']
    : ['Step 4b: not reached. Strict commits begin at step 3; this Redis evicts nothing, as they need.'];
}

/** For programs, on one line. */
export function toJson({ cache, findings, standing, expected, reached, ok }: DoctorReport): string {
  return JSON.stringify({ cache, ok, expected: expected ?? null, reached, ...standing, findings });
}
