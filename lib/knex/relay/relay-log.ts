import type { Logger } from '../../telemetry/log.js';
import type { Emitter } from '../../telemetry/emitter.js';
import type { RelayEvents } from './relay-events.js';

/** Writes a line for each batch (debug), repair and failure (warn), and event set aside (error). */
export function logRelay(log: Logger, telemetry: Emitter<RelayEvents>): void {
  telemetry.on('batch', ({ cache, events, scopes, causes, durationMs }) => {
    const shown = [...causes].map(([cause, times]) => `${times} ${cause}`).join(', ');
    log.debug(`${cache}: relayed ${events} events to ${scopes} scopes in ${durationMs.toFixed(1)} ms: ${shown}`);
  });
  telemetry.on('deadLetter', ({ cache, deadLetters }) => {
    for (const { event, bumped, reason } of deadLetters) {
      log.error(
        `${cache}: event ${event.xid}/${event.seq} kept as a dead letter, ${bumped || 'global'} bumped for it: ${reason}`,
      );
    }
  });
  telemetry.on('heldByMigration', ({ cache, locks }) => {
    for (const { table, error } of locks) {
      log.warn(
        error === undefined
          ? `${cache}: ${table} is taken, so what its migrations may change is bumped each second, and no bound is ` +
              'kept. If none is running, free it: knex migrate:unlock'
          : `${cache}: whether ${table} is taken can't be told, so what its migrations may change is bumped each ` +
              `second, and no bound is kept: ${error.message}. Let this role select from it.`,
      );
    }
  });
  telemetry.on('repair', ({ cache, cause }) => {
    if (cause === 'first') log.info(`${cache}: relaying from now on; global bumped`);
    else log.warn(`${cache}: global bumped, since bumps or commits may have been lost: ${cause}`);
  });
  telemetry.on('failure', ({ cache, operation, error }) => log.warn(`${cache}: ${operation} failed: ${error.message}`));
}
