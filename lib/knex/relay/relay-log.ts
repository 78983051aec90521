import type { Logger } from '../../telemetry/log.js';
import type { Emitter } from '../../telemetry/emitter.js';
import { reasonOf } from '../postgres/sqlstate.js';
import type { RelayEvents } from './relay-events.js';

/** Logs each batch (debug), repair and failure (warn), and dead letter (error). */
export function logRelay(log: Logger, telemetry: Emitter<RelayEvents>): void {
  telemetry.on('batch', ({ cache, events, scopes, causes, durationMs, owing = [] }) => {
    const shown = [...causes].map(([cause, times]) => `${times} ${cause}`).join(', ');
    log.debug(
      `${cache}: relayed ${events} events to ${scopes} scopes in ${durationMs.toFixed(1)} ms: ${shown}${owing.length > 0 ? `; owed by ${someOf(owing)}` : ''}`,
    );
  });
  telemetry.on('deadLetter', ({ cache, deadLetters }) => {
    for (const { event, bumped, reason } of deadLetters) {
      log.error(
        `${cache}: event ${event.xid}/${event.seq} is a dead letter, ${bumped || 'global'} was bumped for it: ${reason}`,
      );
    }
  });
  telemetry.on('heldByMigration', ({ cache, locks }) => {
    for (const { table, error } of locks) {
      log.warn(
        error === undefined
          ? `${cache}: ${table} is locked, so the scopes of its migrations are bumped each second, and no bound is ` +
              'kept. If no migration runs, unlock it: knex migrate:unlock'
          : `${cache}: the relay can't read whether ${table} is locked, so the scopes of its migrations are bumped each ` +
              `second, and no bound is kept: ${reasonOf(error)}. Grant the role of the relay SELECT on it.`,
      );
    }
  });
  telemetry.on('repair', ({ cache, cause, partitions }) => {
    const where = partitions === undefined ? '' : ` in ${someOf(partitions)}`;
    if (cause === 'first') log.info(`${cache}: relaying from now on; global bumped${where}`);
    else if (cause === 'backlog') {
      log.warn(
        `${cache}: global bumped${where} before relaying, since the relay was away and events had waited: ${cause}`,
      );
    } else log.warn(`${cache}: global bumped${where}, since bumps or commits may have been lost: ${cause}`);
  });
  telemetry.on('warning', ({ cache, message }) => log.warn(`${cache}: ${message}`));
  telemetry.on('contested', ({ cache }) =>
    log.warn(
      `${cache}: another relay of this cache uses another Redis. They take turns, and each turn bumps global. Give all ` +
        'relays and caches of one name the same address of Redis, or each Redis a cache name of its own. After a ' +
        'failover, let the former primary go: this relay may still be connected to it.',
    ),
  );
  telemetry.on('failure', ({ cache, operation, error, partitions }) =>
    log.warn(
      partitions === undefined
        ? `${cache}: ${operation} failed: ${reasonOf(error)}`
        : `${cache}: ${operation} failed for ${someOf(partitions)}, which owe their bumps until it is back: ${reasonOf(error)}`,
    ),
  );
}

/** `partitions 3/64, 4/64, 9/64 and 18 more`. */
export function someOf(partitions: readonly string[]): string {
  const [shown, more] = [partitions.slice(0, SHOWN_MAX).join(', '), partitions.length - SHOWN_MAX];
  return `${partitions.length === 1 ? 'partition' : 'partitions'} ${shown}${more > 0 ? ` and ${more} more` : ''}`;
}

const SHOWN_MAX = 5;
