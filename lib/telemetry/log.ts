import { describe } from '../errors/describe.js';
import type { Emitter } from './emitter.js';

/** The logger of a cache: pino, winston and console fit. */
export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** Writes a line for each miss and bump (debug), and for each failure (warn; a stale entry: error). */
export function logTo(log: Logger, telemetry: Emitter): void {
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
      log.warn(
        `${cache}: bump of ${bumps} ${namespace} failed: ${cause}: ${shown}: ${error instanceof Error ? error.message : describe(error)}${trace(stack)}`,
      );
    }
  });
  telemetry.on('fill', ({ cache, entry, refused, refusalReasons, error }) => {
    const reasons = Object.keys(refusalReasons).join(', ');
    if (error) log.warn(`${cache}: ${refused} ${entry} not stored: ${reasons}: ${error.message}`);
  });
  telemetry.on('decodeFailure', ({ cache, entry, path, message }) => {
    log.warn(`${cache}: ${entry} at ${path || 'global'} can't be used: ${message}`);
  });
  telemetry.on('storeFailure', ({ cache, operation, error }) => {
    log.warn(`${cache}: store failed, ${operation}: ${error.message}`);
  });
  telemetry.on('staleEntry', ({ cache, entry, path, vector }) => {
    log.error(`${cache}: stale entry confirmed: ${entry} at ${path || 'global'} under ${String(vector)}`);
  });
  telemetry.on('freshnessChanged', ({ cache, maxStalenessMs, isFresh }) => {
    if (isFresh)
      log.info(`${cache}: a relay keeps the store fresh within ${maxStalenessMs} ms; reads use the store again`);
    else log.warn(`${cache}: no relay keeps the store fresh within ${maxStalenessMs} ms; reads go to the source`);
  });
  telemetry.on('storeUp', ({ cache }) => log.info(`${cache}: store is up`));
  telemetry.on('warning', ({ cache, message }) => log.warn(`${cache}: ${message}`));
}

function trace(stack: string | undefined): string {
  return stack === undefined ? '' : `\n${stack}`;
}
