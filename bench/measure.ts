/**
 * Compares two sides in one run: small blocks that alternate, the ratio of each pair of neighbours, and their median.
 *
 * A shared machine gets faster and slower from second to second, by more than the differences looked for. Neighbouring
 * blocks of some ten milliseconds see the same machine, so a pair's ratio is fair where a side's average is not. Who
 * goes first alternates too. Not mitata or tinybench: both run a task to its end before they start the next one.
 */

/** One thing to time. All but `run` is outside the time. */
export interface Side {
  readonly run: (index: number) => unknown;
  /** Before each block, for so many operations. */
  readonly beforeBlock?: (operations: number) => unknown;
  /** Before each operation. Give both sides one, or none: it also is a pause. */
  readonly beforeEach?: (index: number) => unknown;
}

export interface Plan {
  /** Pairs of blocks; at least 30, or 9 where each takes a second. */
  readonly pairs: number;
  /** How long a block of the baseline takes, about. */
  readonly blockMs?: number;
  /** Instead of `blockMs`: operations in a block, where they are long, or each needs preparation. */
  readonly operations?: number;
  readonly warmUpMs?: number;
}

export interface Comparison {
  readonly ratio: number;
  readonly interval: readonly [number, number];
  readonly subjectMs: number;
  readonly baselineMs: number;
}

const BLOCK_MS = 12;
const WARM_UP_MS = 1_000;

export async function compare(subject: Side, baseline: Side, plan: Plan): Promise<Comparison> {
  const { pairs, blockMs = BLOCK_MS, warmUpMs = WARM_UP_MS } = plan;
  let operations = plan.operations ?? 1;
  // Both sides get hot in turns, as they will be measured, and the last baseline tells how many fill a block.
  const warmUntil = performance.now() + warmUpMs;
  while (performance.now() < warmUntil) {
    await block(subject, operations);
    const perOperationMs = await block(baseline, operations);
    if (plan.operations === undefined) operations = Math.max(1, Math.ceil(blockMs / perOperationMs));
  }

  const subjects: number[] = [];
  const baselines: number[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    if (pair % 2 === 0) subjects.push(await block(subject, operations));
    baselines.push(await block(baseline, operations));
    if (pair % 2 === 1) subjects.push(await block(subject, operations));
  }
  const ratios = subjects.map((ms, pair) => ms / baselines[pair]!);
  return {
    ratio: median(ratios),
    interval: intervalOfMedian(ratios),
    subjectMs: median(subjects),
    baselineMs: median(baselines),
  };
}

/** The same of rates instead of durations: above 1 the subject is the faster one. */
export function ofRates({ ratio, interval: [low, high], ...durations }: Comparison): Comparison {
  return { ratio: 1 / ratio, interval: [1 / high, 1 / low], ...durations };
}

/** Milliseconds of one operation in a block of so many. */
async function block({ run, beforeBlock, beforeEach }: Side, operations: number): Promise<number> {
  await beforeBlock?.(operations);
  if (beforeEach === undefined) {
    const startedAtMs = performance.now();
    for (let index = 0; index < operations; index++) await run(index);
    return (performance.now() - startedAtMs) / operations;
  }
  let totalMs = 0;
  for (let index = 0; index < operations; index++) {
    await beforeEach(index);
    const startedAtMs = performance.now();
    await run(index);
    totalMs += performance.now() - startedAtMs;
  }
  return totalMs / operations;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The least value that so large a share of them does not exceed (nearest rank). */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

const RESAMPLES = 2_000;

/** The percentile bootstrap (Efron 1979): where the medians of resampled ratios lie, but for 2.5 % at each end. */
export function intervalOfMedian(values: readonly number[]): readonly [number, number] {
  const medians = Array.from({ length: RESAMPLES }, () =>
    median(values.map(() => values[Math.floor(Math.random() * values.length)]!)),
  ).sort((a, b) => a - b);
  return [medians[Math.floor(RESAMPLES * 0.025)]!, medians[Math.floor(RESAMPLES * 0.975)]!];
}
