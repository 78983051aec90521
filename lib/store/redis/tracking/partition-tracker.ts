/**
 * Tells which generations of one partition change: by the pushes of its primary, and by beats, which show that pushes
 * arrive.
 *
 *     waiting --the server that pushes is the one that takes commands--> told --lost, moved, another incarnation--> waiting
 *
 * A beat is a key of its own, `h:<process>:<n>`, that a script writes on the connection for commands, and whose push arrives
 * on the tracking connection. It says that every change before it has been pushed, since Redis pushes changes in the order in
 * which it makes them; those that it makes in one turn of its event loop come prefix by prefix, in the order of bytes, so that
 * beats follow generations. The number tells a delayed beat from a later one.
 *
 * A beat counts once both have arrived, its push and the script's reply. The reply says whether the beat before it is still
 * there. A key that went without a push means other data: SWAPDB pushes nothing.
 *
 * Partitions of one server share its connections, so one of them sends the beats, and the script looks for the others there
 * (docs/protocol.md, rule 15b). A partition that a beat does not find sends one of its own, and so does each if that beat fails.
 */
import { withDeadline } from '../../../async/deadline.js';
import { type Moment, momentOf, ownClocks } from '../../../async/moment.js';
import { inNoContext } from '../../../async/no-context.js';
import { clearTimeout, monotonicMs, setImmediate, setTimeout } from '../../../async/scheduling.js';
import { nonce } from '../../../model/generation.js';
import { beatKey, beatPrefix, type GenerationKey, generationKey, generationPrefix } from '../../../model/key.js';
import {
  type Beat,
  StoreUnavailableError,
  type Tracking,
  type TrackingListener,
  type TrackingOptions,
} from '../../../ports/store.js';
import type { Route } from '../redis-connection.js';
import { answerOf, type JoinedBeat, type TrackingConnection, type TrackingMember } from './tracking-connection.js';

/** Longest time for the reply to a beat, and from the reply to the push, in ms. */
const BEAT_WITHIN_MS = 2_000;
/** Beats that a beat's key outlives. */
const BEATS_KEPT = 5;
/** Connections in a row without a single beat after which the server counts as one that does not push. */
const SILENT_CONNECTIONS_MAX = 3;

interface SentBeat {
  readonly sentAt: Moment;
  /** Of the reply: whether the beat before it was still there. */
  stoodBefore?: boolean;
  freshness?: Beat['freshness'];
  /** Of the reply: partitions of the same server, and what was found at their keys. */
  found?: readonly (readonly [JoinedBeat, NonNullable<Beat['freshness']>])[];
  answeredAtMs?: number;
  isPushed?: true;
}

export class PartitionTracker implements Tracking, TrackingMember {
  readonly prefix: string;
  readonly tracked: readonly string[];
  readonly #route: Route;
  readonly #pushes: PushSource;
  readonly #options: TrackingOptions;
  readonly #listener: TrackingListener;
  readonly #process = Buffer.from(nonce(), 'base64url').toString('hex');
  readonly #beats = new Map<number, SentBeat>();
  #connection: TrackingConnection | undefined;
  /** The incarnation whose changes are told; undefined while waiting. */
  #told: string | undefined;
  #resets = 0;
  #sent = 0;
  /** The first beat since changes are told. */
  #first = 0;
  /** The last beat whose key is known to be gone. */
  #gone = 0;
  #isSending = false;
  #silentConnections = 0;
  #isRefused = false;
  #isClosed = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(route: Route, pushes: PushSource, options: TrackingOptions, listener: TrackingListener) {
    this.#route = route;
    this.#pushes = pushes;
    this.#options = options;
    this.#listener = listener;
    this.prefix = options.prefix;
    this.tracked = [generationPrefix(options.prefix), beatPrefix(options.prefix, this.#process)];
    pushes.onMove?.(() => this.#move());
    this.#move();
    this.#tickIn(options.beatEveryMs);
  }

  close(): void {
    this.#isClosed = true;
    this.#told = undefined;
    this.#resets++;
    clearTimeout(this.#timer);
    this.#connection?.remove(this);
    this.#connection = undefined;
  }

  began(): void {
    if (this.#connection?.incarnation === undefined) this.refused(unknownIncarnation());
    else this.#tick();
  }

  pushed(keys: readonly string[]): void {
    const changed = keys.filter((key) => key.startsWith(this.tracked[0]!)) as GenerationKey[];
    if (changed.length > 0) this.#listener.changed(changed);
    const beats: number[] = [];
    const own = beatKey(this.prefix, this.#process, 0).slice(0, -1);
    for (const key of keys) {
      if (!key.startsWith(own)) continue;
      const number = Number(key.slice(own.length));
      const beat = this.#beats.get(number);
      // A second push of a beat says that its key is gone.
      if (beat === undefined || beat.isPushed) this.#gone = Math.max(this.#gone, number);
      else {
        beat.isPushed = true;
        beats.push(number);
      }
    }
    for (const number of beats.toSorted((a, b) => a - b)) this.#complete(number);
  }

  flushed(): void {
    if (this.#told !== undefined) this.#tell(this.#told);
  }

  lost(): void {
    if (this.#told !== undefined) this.#tell(undefined);
  }

  refused(error: Error): void {
    if (this.#told !== undefined) this.#tell(undefined);
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#listener.refused(error);
  }

  get isTold(): boolean {
    return this.#told !== undefined && this.#told === this.#route.incarnation;
  }

  join(sentAt: Moment): JoinedBeat {
    const { freshnessKey } = this.#options;
    const resets = this.#resets;
    return {
      key: freshnessKey ?? generationKey(this.prefix, ''),
      arrived: (found) => {
        if (resets === this.#resets) this.#beat({ sentAt, freshness: freshnessKey && found });
      },
      missed: () => {
        if (resets === this.#resets) void this.#send([]);
      },
    };
  }

  /** Follows the partition to the server that it is at. */
  #move(): void {
    if (this.#isClosed) return;
    if (this.#told !== undefined) this.#tell(undefined);
    const connection = this.#pushes.trackingConnection();
    if (connection === this.#connection) return;
    this.#connection?.remove(this);
    this.#connection = connection;
    connection?.add(this);
  }

  #tell(incarnation: string | undefined): void {
    this.#told = incarnation;
    this.#resets++;
    this.#beats.clear();
    this.#first = this.#sent + 1;
    this.#listener.reset(incarnation);
  }

  #tickIn(ms: number): void {
    this.#timer = inNoContext(() =>
      // After the poll phase, in which the pushes that wait in the socket are read.
      setTimeout(() => setImmediate(() => this.#tickAgain()), ms).unref(),
    );
  }

  #tickAgain(): void {
    if (this.#isClosed) return;
    this.#tick();
    this.#tickIn(this.#options.beatEveryMs);
  }

  #tick(): void {
    const { incarnation } = this.#route;
    if (this.#told !== undefined && this.#told !== incarnation) this.#tell(undefined);
    if (this.#told === undefined) this.#begin(incarnation);
    if (this.#told === undefined) return;
    if (this.#isSilent()) this.#leave();
    else this.#sendForAll();
  }

  /** Whether a beat that Redis has answered is not pushed. */
  #isSilent(): boolean {
    for (const { isPushed, answeredAtMs = Infinity } of this.#beats.values()) {
      if (!isPushed && monotonicMs() - answeredAtMs > BEAT_WITHIN_MS) return true;
    }
    return false;
  }

  /** Begins to tell changes, if commands go to the server that pushes. */
  #begin(incarnation: string | undefined): void {
    const pushing = this.#connection?.incarnation;
    if (pushing === undefined || incarnation === undefined) return;
    if (pushing === incarnation) return this.#tell(incarnation);
    // One of the two connections leads to a server of before.
    this.#route.revalidate();
    this.#connection!.reconnect();
  }

  /** Leaves a tracking connection on which no pushes arrive: half-open, or without tracking. */
  #leave(): void {
    this.#tell(undefined);
    if (++this.#silentConnections < SILENT_CONNECTIONS_MAX) this.#connection!.reconnect();
    else this.#connection!.refuse(noPushes());
  }

  /**
   * Sends a beat for all partitions of the server, if this is the last one of them in the order of bytes: Redis pushes the
   * changes of one turn in that order, and a beat must follow those of each partition.
   */
  #sendForAll(): void {
    const told = [...this.#connection!.members].filter(({ isTold }) => isTold);
    if (told.every(({ prefix }) => prefix <= this.prefix)) void this.#send(told.filter((member) => member !== this));
  }

  /** Sends a beat, for these other partitions of the server too. */
  async #send(others: readonly TrackingMember[]): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    const { freshnessKey, beatEveryMs } = this.#options;
    const number = ++this.#sent;
    const beat: SentBeat = { sentAt: momentOf(ownClocks) };
    this.#beats.set(number, beat);
    const joined = others.map((member) => member.join(beat.sentAt));
    const keys = [number, number - 1].map((own) => beatKey(this.prefix, this.#process, own) as string);
    if (freshnessKey !== undefined) keys.push(freshnessKey);
    try {
      const args = [...keys, beatEveryMs * BEATS_KEPT, ...joined.map(({ key }) => key)];
      const [before, value, ttlMs, ...looks] = await withDeadline('beat', BEAT_WITHIN_MS, (deadline) =>
        this.#route.sendUnlessDown(deadline, (client) => client.gencacheBeatBuffer(keys.length, args)),
      );
      beat.stoodBefore = before === 1;
      beat.freshness = freshnessKey && { value, ttlMs };
      beat.found = joined.flatMap((one, i) => {
        const look = looks[i];
        if (look) return [[one, { value: look[0], ttlMs: look[1] }] as const];
        one.missed();
        return [];
      });
      beat.answeredAtMs = monotonicMs();
      this.#complete(number);
    } catch (error) {
      this.#beats.delete(number);
      this.#first = number + 1;
      if (/NOPERM|unknown command/i.test(answerOf(error) ?? '')) this.#connection?.refuse(error as Error);
      for (const one of joined) one.missed();
    } finally {
      this.#isSending = false;
    }
  }

  #complete(number: number): void {
    const beat = this.#beats.get(number);
    if (beat === undefined || beat.answeredAtMs === undefined || !beat.isPushed || this.#told === undefined) return;
    for (const earlier of this.#beats.keys()) if (earlier <= number) this.#beats.delete(earlier);
    if (!beat.stoodBefore && number > this.#first && this.#gone < number - 1) {
      for (const member of this.#connection!.members) member.flushed();
      return;
    }
    this.#beat({ sentAt: beat.sentAt, freshness: beat.freshness });
    for (const [one, found] of beat.found ?? []) one.arrived(found);
  }

  #beat(beat: Beat): void {
    this.#silentConnections = 0;
    this.#isRefused = false;
    this.#listener.beat(beat);
  }
}

/** Where the pushes of a partition come from. */
export interface PushSource {
  /** The tracking connection to the server that commands go to. */
  trackingConnection(): TrackingConnection | undefined;
  /** Calls `listener` in the moment in which commands begin to go to another server. */
  onMove?(listener: () => void): void;
}

function unknownIncarnation(): StoreUnavailableError {
  return new StoreUnavailableError(
    'Redis did not tell its run_id and master_replid, without which its pushes may be those of another server. Let the ' +
      'user run INFO.',
    false,
  );
}

function noPushes(): StoreUnavailableError {
  return new StoreUnavailableError(
    'Redis confirmed CLIENT TRACKING, and pushed no change. Check whether a proxy stands in between.',
    true,
  );
}
