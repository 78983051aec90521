import { createHash } from 'node:crypto';
import { BUMP } from '../../lib/store/redis/commands/bump.lua.js';
import { LIFT } from '../../lib/store/redis/commands/lift.lua.js';
import { QUARANTINE } from '../../lib/store/redis/commands/quarantine.lua.js';
import { RENEW } from '../../lib/store/redis/commands/renew.lua.js';
import { REPAIR } from '../../lib/store/redis/commands/repair.lua.js';

/** A step of a program: one request, told by its content. */
export interface Step {
  readonly server: 'redis' | 'postgres';
  readonly request: RegExp;
  readonly nth?: number;
}

function sql(request: RegExp, nth = 1): Step {
  return { server: 'postgres', request, nth };
}

/** The first call of a script on a connection sends its text, a later one its SHA. */
function script(text: string): Step {
  const [opening] = text.trim().split('\n');
  const sha = createHash('sha1').update(text).digest('hex');
  return { server: 'redis', request: new RegExp(`${escaped(opening!)}|${sha}`) };
}

function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

const BEGIN = sql(/BEGIN;/);
const CHANGE = sql(/update "?item/);
const RECORD = sql(/insert into gencache_outbox/);
const ID = sql(/pg_current_xact_id_if_assigned/);
const COMMIT = sql(/COMMIT;/);
const EVENTS = /from gencache_outbox as event\s+where/;
const DELETE_OWN = sql(/with authority as/);

/** The steps of `transaction`, in order. */
export const PLAIN = {
  BEGIN,
  'the change': CHANGE,
  'recording the event': RECORD,
  'asking for its id': ID,
  COMMIT,
  'reading its events': sql(EVENTS),
  'the bump': script(BUMP),
  'deleting its events': DELETE_OWN,
} as const;

export const STRICT = {
  BEGIN,
  'the change': CHANGE,
  'recording the event': RECORD,
  'the deferred constraints': sql(/set constraints all immediate/),
  'asking for its id': ID,
  'reading its events': sql(EVENTS),
  'the quarantine': script(QUARANTINE),
  COMMIT,
  'reading its events again': sql(EVENTS, 2),
  'the lift': script(LIFT),
  'deleting its events': DELETE_OWN,
} as const;

/** The steps of a relay's turn with one event, in order. */
export const RELAY = {
  'asking for the time': { server: 'redis', request: /\r\n\$4\r\ntime\r\n/i },
  'the check': sql(/pg_current_snapshot\(\)::text as snapshot/),
  'the renewal': script(RENEW),
  // In one message with BEGIN.
  'the claim': sql(/delete from gencache_outbox as event where ctid/),
  'the bump': script(BUMP),
  'the authority check': sql(/select redis from gencache_authority where/),
  COMMIT,
} as const satisfies Record<string, Step>;

/** The steps of a relay when a server is not the authoritative one, in order. */
export const REPAIRING = {
  'the change of authority': sql(/update gencache_authority\s+set redis/),
  'the repair': script(REPAIR),
} as const;
