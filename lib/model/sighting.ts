import type { Moment } from '../async/moment.js';

/** A moment at which the store had a generation, as a reply or a beat told this process. */
export interface Sighting {
  /** The moment before the command was sent that showed the generation. */
  readonly at: Moment;
  /** How long the store is known to be fresh, by a command that it carried out no later than that one. */
  readonly fresh: KnownFresh;
}

/** A sighting by the reply to a command that read generations. */
export interface ReplySighting extends Sighting {
  /** The last step before the command was sent (`model/tracked-scope.ts`). */
  readonly step: number;
  /** Number of the command, in the order of sending. */
  readonly command: number;
}

/** The time for which the store is known to be fresh; without a bound for ever. */
export interface KnownFresh {
  readonly since: Moment;
  readonly forMs: number;
}
