import { Conditions } from './conditions.js';
import { describe } from '../errors/describe.js';
import { UnencodableValueError } from '../errors/errors.js';
import type { Emitter } from './emitter.js';

/** The logger of a cache: pino, winston and console fit. */
export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** One condition, such as a store that does not answer, writes one line in this time, in ms. */
const CONDITION_EVERY_MS = 60_000;

/**
 * Writes a line for each miss and bump (debug), and for each failure (warn; a stale entry: error). Failures of one kind are
 * one condition: its first line is written at once, then one a minute with the number left out, and its end.
 */
export function logTo(log: Logger, telemetry: Emitter, everyMs = CONDITION_EVERY_MS): void {
  const conditions = new Conditions(everyMs);
  const warn = (condition: string, line: string) => conditions.write(condition, line, (text) => log.warn(text));
  const ended = (condition: string, line: string) => {
    const leftOut = conditions.end(condition);
    if (leftOut !== undefined) log.info(line + leftOut);
  };
  telemetry.on('read', ({ cache, entry, missed, bypassReasons, stack }) => {
    for (const { path, cause, bumped } of missed) {
      const by = bumped === undefined ? '' : ` by ${bumped || 'global'}`;
      log.debug(`${cache}: miss of ${entry} at ${path || 'global'}: ${cause}${by}${trace(stack)}`);
    }
    for (const [reason, bypasses] of Object.entries(bypassReasons)) {
      log.debug(`${cache}: bypass of ${bypasses} ${entry}: ${reason}${trace(stack)}`);
    }
  });
  telemetry.on('bump', ({ cache, namespace = 'scopes', cause, bumps, moved, paths, error, stack }) => {
    const shown = paths.map((path) => path || 'global').join(' ') + (bumps > paths.length ? ' …' : '');
    if (error === undefined) {
      const cached = moved === undefined ? '' : `, ${moved} cached`;
      log.debug(`${cache}: bump of ${bumps} ${namespace}${cached}: ${cause}: ${shown}${trace(stack)}`);
    } else {
      warn(
        `bump ${namespace} ${cause} ${kindOf(error)}`,
        `${cache}: bump of ${bumps} ${namespace} failed: ${cause}: ${shown}: ${error instanceof Error ? error.message : describe(error)}${trace(stack)}`,
      );
    }
  });
  const isNew = firstTime();
  telemetry.on('fill', ({ cache, namespace, entry, refused, refusalReasons, error }) => {
    if (!error) return;
    let more = '';
    if (error instanceof UnencodableValueError) {
      // A column of such a type is in every row: one line an entry, not one a fill.
      if (!isNew(`${namespace} ${entry} ${error.path.replaceAll(/\d+/g, '')}`)) return;
      more = ' Further such values are counted by refused_fills alone.';
    }
    const reasons = Object.keys(refusalReasons).join(', ');
    const line = `${cache}: ${refused} ${entry} not stored: ${reasons}: ${error.message}${more}`;
    if (more === '') warn(`fill ${namespace} ${entry} ${reasons}`, line);
    else log.warn(line);
  });
  telemetry.on('decodeFailure', ({ cache, namespace, entry, path, reason, message }) => {
    const line = `${cache}: ${entry} at ${path || 'global'} can't be used: ${message}`;
    warn(`decode ${namespace} ${entry} ${reason}`, line);
  });
  telemetry.on('storeFailure', ({ cache, operation, error }) => {
    warn(`store ${operation} ${kindOf(error)}`, `${cache}: store failed, ${operation}: ${error.message}`);
  });
  telemetry.on('staleHit', ({ cache, namespace, entry, path, reason, error }) => {
    if (reason === 'refreshing') return;
    const cause = {
      outage: 'the store gives no answer',
      slow: 'its load is slow',
      error: `its load failed: ${(error as Error)?.message ?? describe(error)}`,
    }[reason];
    warn(`stale ${namespace} ${entry} ${reason}`, `${cache}: ${entry} at ${path || 'global'} served stale: ${cause}`);
  });
  telemetry.on('staleEntry', ({ cache, entry, path, vector, deleted }) => {
    const place = `${entry} at ${path || 'global'} under ${String(vector)}`;
    log.error(`${cache}: stale entry confirmed${deleted ? ', and deleted' : ''}: ${place}`);
  });
  telemetry.on('freshnessChanged', ({ cache, maxStalenessMs, isFresh }) => {
    if (isFresh)
      log.info(`${cache}: a relay keeps the store fresh within ${maxStalenessMs} ms; reads use the store again`);
    else log.warn(`${cache}: no relay keeps the store fresh within ${maxStalenessMs} ms; reads go to the source`);
  });
  telemetry.on('breakerChanged', ({ cache, operation, isOpen, error }) => {
    const [skipped, resumed] = BREAKER_LINES[operation];
    if (isOpen) {
      const line = `${cache}: ${skipped}, since the store failed several times in a row: ${error!.message}`;
      warn(`store ${operation} breaker`, line);
    } else ended(`store ${operation}`, `${cache}: ${resumed}`);
  });
  telemetry.on('storeUp', ({ cache }) => ended('store connection', `${cache}: store is up`));
  telemetry.on('warning', ({ cache, message }) => log.warn(`${cache}: ${message}`));
}

/** Distinguishes failures that are different conditions; a message alone may hold what varies. */
function kindOf(error: unknown): string {
  if (!(error instanceof Error)) return describe(error);
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : error.name;
}

const BREAKER_LINES = {
  read: ['reads go to the source', 'reads use the store again'],
  fill: ['loaded values are not stored', 'loaded values are stored again'],
} as const;

/** Most subjects that are remembered: the path of a value may hold keys of data. */
const SUBJECTS_MAX = 1_000;

/** Returns a function that tells whether it got a subject for the first time. */
function firstTime(): (subject: string) => boolean {
  const known = new Set<string>();
  return (subject) => {
    if (known.has(subject)) return false;
    if (known.size < SUBJECTS_MAX) known.add(subject);
    return true;
  };
}

function trace(stack: string | undefined): string {
  return stack === undefined ? '' : `\n${stack}`;
}
