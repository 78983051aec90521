/**
 * Builds every key there is. The grammar, in ABNF's spirit:
 *
 *     generation = prefix "g:" path
 *     entry      = prefix "e:" schema ":" path ":" name *( "," id ) ":" vector
 *     freshness  = prefix "f:" bound                      ; the bound in ms
 *     mark       = prefix "m"
 *     prefix     = "gencache:{" cache ":" partition "}:"
 *     path       = "" | segment *( "/" segment )          ; "" is global
 *     segment    = namespace "=" id                       ; root first
 *     vector     = generation-value *( "," generation-value )
 *
 *     gencache:{workflow_engine:0}:g:detector=42/environment=7
 *     gencache:{workflow_engine:0}:e:1:detector=42/environment=7:workflows:0.hT0…,3.Zr1…,0.q8c…
 *     gencache:{workflow_engine:0}:f:5000
 *     gencache:{workflow_engine:0}:m
 *
 * An id is escaped by its kind (`id-kind.ts`), so it holds none of `: / = , { }` and reaches into no other scope.
 * The braces are Redis Cluster's hash tag: a partition's generations and entries share a slot, so that one MGET can
 * read them. Without Cluster there is one partition, 0.
 *
 * A generation's key holds no schema version: two releases of an application side by side share generations, so
 * either's bump reaches both, and not entries, whose format they may disagree on. A path can be parsed, and its
 * ancestors named, by a program that knows none of the namespaces.
 *
 * A freshness key vouches, while it stands, that every change older than its bound has been bumped: next to the
 * generations it vouches for, so that a lookup reads it with them. The mark says after which repair that may be said.
 */
declare const brand: unique symbol;

/** The key of a scope's generation. */
export type GenerationKey = string & { readonly [brand]: 'GenerationKey' };

/** The key of an entry under one vector: another vector, another key. */
export type EntryKey = string & { readonly [brand]: 'EntryKey' };

/** The key that vouches for one bound. */
export type FreshnessKey = string & { readonly [brand]: 'FreshnessKey' };

/** The key of the mark that a repair leaves. */
export type MarkKey = string & { readonly [brand]: 'MarkKey' };

/** Names that stand in keys as they are, and in ids objects as properties. */
const NAME = /^[a-z][A-Za-z0-9_]{0,63}$/;

export const NAME_RULE = 'a lower-case letter, then letters, digits or underscores, 64 characters at most';

export function isName(name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name);
}

/** Until a cache on Redis Cluster chooses one by the first id below the root. */
const PARTITION = 0;

/** The part of every key that a cache shares. */
export function keyPrefix(cache: string): string {
  return `gencache:{${cache}:${PARTITION}}:`;
}

export function generationKey(prefix: string, path: string): GenerationKey {
  return `${prefix}g:${path}` as GenerationKey;
}

export function entryKey({ prefix, schemaVersion, scopePath, entryPath, vector }: EntryKeyParts): EntryKey {
  return `${prefix}e:${schemaVersion}:${scopePath}:${entryPath}:${vector}` as EntryKey;
}

interface EntryKeyParts {
  readonly prefix: string;
  readonly schemaVersion: number;
  readonly scopePath: string;
  /** The entry's name, and the ids of its key if it has one. */
  readonly entryPath: string;
  /** The generations' values, separated by commas. */
  readonly vector: string;
}

export function freshnessKey(prefix: string, boundMs: number): FreshnessKey {
  return `${prefix}f:${boundMs}` as FreshnessKey;
}

/** The bound that a freshness key vouches for, in ms. */
export function boundOf(key: FreshnessKey): number {
  return Number(key.slice(key.lastIndexOf(':') + 1));
}

export function markKey(prefix: string): MarkKey {
  return `${prefix}m` as MarkKey;
}

/** The path of a child scope; `text` comes from the child's id kind. */
export function childPath(parent: string, namespace: string, text: string): string {
  return parent === '' ? `${namespace}=${text}` : `${parent}/${namespace}=${text}`;
}
