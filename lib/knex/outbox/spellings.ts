/**
 * The paths under which readers may know a recorded scope. An event carries an id as its column spells it, and not the
 * kind of its namespace's ids: a text column may hold a UUID in capitals, which readers by `uuid()` know in lower case, or
 * `042`, which readers by `integer()` know as `42`. So an id that another kind spells in another way stands for both
 * spellings. One bump too many costs a miss; one too few, an old value.
 */
import { integer, uuid } from '../../model/id-kind.js';
import { childPath } from '../../model/key.js';
import { topmost } from '../../model/path.js';

/** Of a path with more spellings than this, the nearest scope above that has fewer is bumped, which covers all of them. */
const SPELLINGS_MAX = 16;

/** The scopes to bump for recorded paths, in every spelling, none below another. `paths`: valid ones. */
export function scopesToBump(paths: ReadonlySet<string>): string[] {
  const spelled = new Set<string>();
  for (const path of paths) {
    if (!OTHER_PATH.test(path)) spelled.add(path);
    else for (const spelling of spellings(path)) spelled.add(spelling);
  }
  return topmost(spelled);
}

/** The path itself, and the same scope as other kinds of ids spell it. */
export function spellings(path: string): string[] {
  if (!OTHER_PATH.test(path)) return [path];
  let parents = [''];
  for (const segment of path.split('/')) {
    const [namespace, id] = segment.split('=') as [string, string];
    const other = otherSpelling(id);
    const texts = other === undefined ? [id] : [id, other];
    if (parents.length * texts.length > SPELLINGS_MAX) break;
    parents = parents.flatMap((parent) => texts.map((text) => childPath(parent, namespace, text)));
  }
  return parents;
}

/** Spares most paths the rest: an id that begins as a number in another spelling does, or has the length of a UUID. */
const OTHER_PATH = /=(?:[-+%]|0[0-9A-Za-z]|[0-9]+%)|=[^=/]{32}/;

const UUID = /^\{?(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}\}?$/i;
const INTEGER = /^\s*[-+]?[0-9][0-9A-Za-z]*\s*$/;

/** What PostgreSQL makes of an id's text as a uuid or a bigint, in the spelling of keys; undefined if that is the id itself. */
function otherSpelling(id: string): string | undefined {
  const text = unescaped(id);
  if (text === undefined) return undefined;
  const other = UUID.test(text) ? asUuid(text) : INTEGER.test(text) ? asInteger(text) : undefined;
  return other === id ? undefined : other;
}

function asUuid(text: string): string | undefined {
  const digits = text.replaceAll(/[{}-]/g, '');
  const value = uuid().value(digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'));
  return value === undefined ? undefined : uuid().text(value);
}

/** Also a number with a plus, zeros or blanks around it; from PostgreSQL 16 on in hexadecimal, octal and binary, too. */
function asInteger(text: string): string | undefined {
  const [, minus, digits] = /^([-+]?)(.*)$/.exec(text.trim())!;
  let value;
  try {
    value = integer().value(minus === '-' ? -BigInt(digits!) : BigInt(digits!));
  } catch {
    return undefined;
  }
  return value === undefined ? undefined : integer().text(value);
}

/** Undefined for a hash, which stands for a text that no other kind spells. */
function unescaped(id: string): string | undefined {
  try {
    return decodeURIComponent(id);
  } catch {
    return undefined;
  }
}
