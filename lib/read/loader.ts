import { monotonicMs } from '../async/scheduling.js';
import type { Address, EntryDefinition, LoadContext } from '../model/entry-definition.js';
import { describe } from '../errors/describe.js';
import { ABSENT } from '../codec/envelope.js';
import { IdError, LoaderContractError } from '../errors/errors.js';
import type { Attributes, LoadEvent } from '../telemetry/events.js';
import type { Emitter } from '../telemetry/emitter.js';

export interface LoadRequest {
  readonly definition: EntryDefinition;
  /** Distinct addresses of `definition`. */
  readonly addresses: readonly Address[];
  /** Returns the source's context with the signal, for the loader. */
  readonly context: () => LoadContext;
  readonly telemetry: Emitter;
  readonly purpose: LoadEvent['purpose'];
  readonly attributes: Attributes | undefined;
}

/**
 * Calls an entry's `load` once for `addresses: [n]`, distinct, and returns their values, `-> [n]`, same order: a row's
 * value or ABSENT for `one`, an array of the rows' values in the loader's order for `list`. For `value` the one row is the
 * value; undefined is ABSENT.
 *
 * Costs one query, if the loader sends one. The loader's errors pass through unwrapped; rows that break the contract
 * throw LoaderContractError.
 */
export async function load({
  definition,
  addresses,
  context,
  telemetry,
  purpose,
  attributes,
}: LoadRequest): Promise<unknown[]> {
  const { cache, namespace, name: entry } = definition;
  const startedAtMs = monotonicMs();
  let rows = 0;
  let error: unknown;
  try {
    const loaded: unknown = await definition.load(
      addresses.map((address) => address.ids),
      context(),
    );
    if (!Array.isArray(loaded)) throw notRows(definition, loaded);
    if (definition.shape === 'value') {
      const [value] = loaded;
      rows = value === undefined ? 0 : 1;
      return [value === undefined ? ABSENT : value];
    }
    rows = loaded.length;
    return group(definition, addresses, loaded);
  } catch (thrown) {
    error =
      thrown ??
      new LoaderContractError(entry, `A loader must throw an Error, but got ${describe(thrown)} (entry "${entry}").`);
    throw thrown;
  } finally {
    const durationMs = monotonicMs() - startedAtMs;
    telemetry.emit('load', {
      cache,
      namespace,
      entry,
      attributes,
      ids: addresses.length,
      rows,
      durationMs,
      queries: 1,
      purpose,
      error,
    });
  }
}

function group(definition: EntryDefinition, addresses: readonly Address[], rows: readonly unknown[]): unknown[] {
  const indexes = new Map(addresses.map((address, i) => [address.id, i]));
  const values: unknown[] = addresses.map(() => (definition.shape === 'list' ? [] : ABSENT));
  for (const row of rows) {
    const index = indexes.get(owner(definition, row));
    if (index === undefined) throw foreignRow(definition, row);
    const value = definition.value(row);
    if (definition.shape === 'list') (values[index] as unknown[]).push(value);
    else if (values[index] === ABSENT) values[index] = value;
    else throw secondRow(definition, addresses[index]!);
  }
  return values;
}

/** Returns the id of the address that a row belongs to, by the entry's `by`. */
function owner(definition: EntryDefinition, row: unknown): string {
  const ids = definition.by(row);
  try {
    return definition.address(ids).id;
  } catch (cause) {
    throw new LoaderContractError(
      definition.name,
      `\`by\` must return the ids of a row, but got ${describe(ids)} (entry "${definition.name}"). ` +
        `${cause instanceof IdError ? cause.rule : (cause as Error).message} Correct \`by\`, or select the columns it reads.`,
    );
  }
}

function notRows(definition: EntryDefinition, loaded: unknown): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `A loader must resolve to an array of rows, but got ${describe(loaded)} (entry "${definition.name}"). ` +
      'Return the rows of all ids in one array; without rows, return an empty array.',
  );
}

function foreignRow(definition: EntryDefinition, row: unknown): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `A loader must return only rows of the ids it was given, but got a row of ${describe(definition.by(row))} ` +
      `(entry "${definition.name}"). Correct the query's condition, or \`by\`.`,
  );
}

function secondRow(definition: EntryDefinition, address: Address): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `An entry declared with \`one\` must have at most one row, but got two for ${describe(address.ids)} ` +
      `(entry "${definition.name}"). Correct the query, or declare the entry with \`list\`.`,
  );
}
