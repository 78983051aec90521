import type { Address } from '../model/entry-definition.js';
import { type Generation, parseGeneration } from '../model/generation.js';
import { isQuarantined } from '../model/quarantined-generation.js';
import type { Scope } from '../model/scope.js';

/*
 * The scopes of one lookup, each once, and how their generations stand. What was sent and what was seen are arrays by
 * `scope.index`, which belongs to one lookup at a time: it is set before a read is sent, and again when it is answered.
 */

/** A generation as a read saw it. */
export type GenerationState = Generation | 'missing' | 'quarantined' | 'foreign';

/** Every scope of the batch once, indexed. */
export function collect(addresses: readonly Address[]): Scope[] {
  const collection = {};
  const scopes: Scope[] = [];
  for (const address of addresses) {
    for (const scope of address.scopes) {
      if (scope.collectedBy === collection) continue;
      scope.collectedBy = collection;
      scope.index = scopes.length;
      scopes.push(scope);
    }
  }
  return scopes;
}

/** Restores the indexes after an await, during which other batches may have set their own. */
export function index(scopes: readonly Scope[]): void {
  for (let i = 0; i < scopes.length; i++) scopes[i]!.index = i;
}

export function see(scope: Scope, reply: Buffer | null, sent: Generation | undefined): GenerationState {
  if (reply === null) {
    scope.remembered = undefined;
    return 'missing';
  }
  const value = reply.toString('latin1');
  if (value === sent) return sent;
  scope.remembered = parseGeneration(value);
  return scope.remembered ?? (isQuarantined(value) ? 'quarantined' : 'foreign');
}

/** How the scopes of an address stand against what was sent: the worst of them. */
export function compare(
  scopes: readonly Scope[],
  seen: readonly GenerationState[],
  sent: readonly (Generation | undefined)[],
): 'same' | 'moved' | 'missing' | 'quarantined' | 'foreign' {
  let state: 'same' | 'moved' | 'missing' | 'quarantined' = 'same';
  for (const { index } of scopes) {
    const token = seen[index]!;
    if (token === 'foreign') return 'foreign';
    if (token === 'quarantined') state = 'quarantined';
    else if (token === 'missing') {
      if (state !== 'quarantined') state = 'missing';
    } else if (token !== sent[index] && state === 'same') state = 'moved';
  }
  return state;
}

export function stands(
  generations: readonly Generation[],
  scopes: readonly Scope[],
  current: readonly (Generation | undefined)[],
): boolean {
  if (generations.length !== scopes.length) return false;
  for (let i = 0; i < generations.length; i++) if (current[scopes[i]!.index] !== generations[i]) return false;
  return true;
}
