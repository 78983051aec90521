/**
 * What a spec borrows (clients, databases, servers, proxies) goes back by itself: `lend` notes how to close it, and
 * the root hooks of `setup.ts` close it after the spec, or after the suite whose `before` hook borrowed it.
 *
 * A spec leaks when something lent doesn't close in time, when it was in use at the end (a transaction left open),
 * or when the spec leaves more TCP sockets open than it found. The leak fails that very spec and not the run.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** Until when something is lent: the end of the running spec, or of the suite that the running hook belongs to. */
export type Lifetime = 'spec' | 'suite';

export interface Loan {
  /** What it is, for the message when it doesn't close. */
  readonly what: string;
  /** Closes it. `keep`: a spec failed and its data are to be kept. What it throws counts as a leak. */
  close(ending: { keep: boolean }): Promise<unknown> | void;
  /** How many sockets it has open now, if that may grow while specs run, as a pool's do. */
  sockets?(): number;
}

const CLOSE_MS = 8_000;
const SOCKETS_MS = 1_000;

let specLoans: Loan[] = [];
const suiteLoans = new Map<Mocha.Suite, Loan[]>();
let running: { suite: Mocha.Suite; inBefore: boolean } | undefined;
let failures = 0;

/** Notes a loan: until the end of the suite when a `before` hook borrows, else of the spec, unless told. */
export function lend(loan: Loan, lifetime: Lifetime = running?.inBefore === true ? 'suite' : 'spec'): void {
  if (lifetime === 'spec') {
    specLoans.push(loan);
    return;
  }
  if (running === undefined)
    throw new Error(`${loan.what} is lent for a suite, but none is running: call it in a hook.`);
  const { suite } = running;
  const loans = suiteLoans.get(suite);
  if (loans !== undefined) {
    loans.push(loan);
    return;
  }
  suiteLoans.set(suite, [loan]);
  const before = failures;
  // Added while the suite runs, hence after its own `after` hooks, which may still use what was lent.
  suite.afterAll('returns what was lent', async () => {
    const ending = { keep: keepsData() && failures > before };
    const leaks = await closeAll(suiteLoans.get(suite) ?? [], ending);
    suiteLoans.delete(suite);
    if (leaks.length > 0) throw leakError(leaks);
  });
}

/** Follows which suite runs and which specs fail. */
export function followRun(runner: Mocha.Runner): void {
  runner.on('hook', (hook) => {
    if (hook.parent) running = { suite: hook.parent, inBefore: hook.title.startsWith('"before all" hook') };
  });
  runner.on('test', (test) => {
    if (test.parent) running = { suite: test.parent, inBefore: false };
  });
  runner.on('fail', () => failures++);
}

/** KEEP=1: what a failed spec worked on is left behind to be looked at. */
export function keepsData(): boolean {
  return process.env['KEEP'] === '1';
}

export function specsFailed(): boolean {
  return failures > 0;
}

/** Counts the sockets before a spec; the function it returns takes the loans back and tells what leaked. */
export function watchSpec(): (ending: { failed: boolean }) => Promise<Error | undefined> {
  const before = openSockets();
  return async ({ failed }) => {
    const loans = specLoans;
    specLoans = [];
    const leaks = await closeAll(loans, { keep: failed && keepsData() });
    const deadline = performance.now() + SOCKETS_MS;
    while (openSockets() > before && performance.now() < deadline) await sleep(10);
    const more = openSockets() - before;
    if (more > 0) leaks.push(`it left ${more} TCP sockets or servers open that it did not borrow from spec/support`);
    return leaks.length > 0 ? leakError(leaks) : undefined;
  };
}

function leakError(leaks: string[]): Error {
  return new Error(`A spec returns everything it opens; this one leaked: ${leaks.join('; ')}.`);
}

/** Last borrowed, first returned: a client before its server. */
async function closeAll(loans: Loan[], ending: { keep: boolean }): Promise<string[]> {
  const leaks: string[] = [];
  for (const loan of loans.toReversed()) {
    const abort = new AbortController();
    const late = sleep(CLOSE_MS, `it did not close within ${CLOSE_MS} ms`, { signal: abort.signal });
    late.catch(() => {});
    try {
      const leak = await Promise.race([Promise.resolve(loan.close(ending)).then(() => undefined), late]);
      if (leak !== undefined) leaks.push(`${loan.what}: ${leak}`);
    } catch (error) {
      leaks.push(`${loan.what}: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      abort.abort();
    }
  }
  return leaks;
}

/** Sockets that no pool lent to a suite accounts for: such a pool may well grow during a spec. */
function openSockets(): number {
  const open = process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length;
  const pooled = [...suiteLoans.values()].flat().reduce((sum, loan) => sum + (loan.sockets?.() ?? 0), 0);
  return open - pooled;
}
