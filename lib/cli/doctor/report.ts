import { columns } from '../command.js';
import type { Finding } from './finding.js';
import type { Expected, Standing } from './step.js';

export interface Report {
  readonly cache: string;
  readonly findings: readonly Finding[];
  readonly standing: Standing;
  readonly expected: Expected | undefined;
  /** Nothing is broken, and the expected step is reached. */
  readonly ok: boolean;
}

/** For people: the findings, each with what to do; what is not covered; what to do next; and, last, the step. */
export function toText({ findings, standing, expected }: Report): string {
  const { step, promise, notCovered, next, strict } = standing;
  const rows = findings.flatMap(({ status, check, message, remedy }) => [
    [status, check, message],
    ...(remedy === undefined ? [] : [['', '', `-> ${remedy}`]]),
  ]);
  return [
    columns(rows),
    '',
    ...notCovered.map((writers) => `Not covered: ${writers}.`),
    ...(strict ? ['Strict commits (step 4b) are possible.'] : []),
    ...(expected === undefined ? [] : [`Expected: step ${expected}.`]),
    `Next: ${next}`,
    `Step ${step === '0' ? '0 or 1' : step}: ${promise}.`,
  ].join('\n');
}

/** For programs, on one line. */
export function toJson({ cache, findings, standing, expected, ok }: Report): string {
  return JSON.stringify({ cache, ok, expected: expected ?? null, ...standing, findings });
}
