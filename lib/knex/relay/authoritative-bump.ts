import type { Knex } from 'knex';
import type { Partition } from '../../ports/partitions.js';
import { StoreUnavailableError } from '../../ports/store.js';
import { authoritativeRedis } from '../outbox/authority.js';
import type { RelayContext } from './relay-context.js';

/** The server that took the bumps is not authoritative: the events stay. */
export class DisplacedError extends StoreUnavailableError {}

/** Throws DisplacedError unless the server that took the bumps is authoritative, and stays so until this transaction commits. */
export async function assertAuthoritative(
  trx: Knex,
  { partitions, cache, outbox }: Pick<RelayContext, 'partitions' | 'cache' | 'outbox'>,
  server: string | undefined,
): Promise<void> {
  const authority = await authoritativeRedis(trx, cache, outbox);
  if (server !== undefined && authority === server) return;
  throw displaced(partitions.first, server, authority);
}

/** The error of bumps that a server took which is not authoritative; the store then looks again at the server. */
export function displaced(
  { store }: Partition,
  server: string | undefined,
  authority: string | undefined,
): DisplacedError {
  store.revalidate?.();
  return new DisplacedError(
    (server === undefined
      ? 'The bumps went to several Redis servers, or to one of unknown incarnation'
      : `The bumps went to a Redis that is not the authoritative one (${server}, not ${authority ?? 'any'})`) +
      ': it has failed over, or another relay of this cache uses another Redis. The events stay in the outbox; a relay ' +
      'bumps them again.',
    true,
  );
}
