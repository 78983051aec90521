/**
 * The types by which a compiler compares the bumps of triggers with the namespaces of an application: names of ids alone.
 * Their order, the kinds and the name of the cache are compared with what is published.
 */

/** The ids of a declared namespace; `unknown` stands for namespaces of any names. */
type IdsOf<Declared> = Declared extends { scope(ids: infer Ids): unknown } ? Ids : never;

/** The names of all ids of all these namespaces. */
type NamesOf<Declared> = Declared extends unknown ? keyof IdsOf<Declared> & string : never;

/** Exactly the names of one of these namespaces, or none for global, each with its column. */
export type BumpColumns<Declared, Column> = unknown extends Declared
  ? Readonly<Record<string, Column>>
  : ColumnsOfOne<Declared, NamesOf<Declared>, Column> | Without<NamesOf<Declared>>;

type ColumnsOfOne<Declared, Names extends string, Column> = Declared extends unknown
  ? { readonly [Name in keyof IdsOf<Declared> & string]: Column } & Without<Exclude<Names, keyof IdsOf<Declared>>>
  : never;

type Without<Names extends string> = { readonly [Name in Names]?: never };
