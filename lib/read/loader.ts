import type { Address, EntryDefinition } from '../model/entry-definition.js';
import { describe } from '../errors/describe.js';
import { ABSENT } from '../codec/envelope.js';
import { LoaderContractError } from '../errors/errors.js';
import type { Attributes, LoadEvent } from '../telemetry/events.js';
import type { Emitter } from '../telemetry/emitter.js';

/**
 * Calls an entry's `load` once for `addresses: [n]`, distinct, and gives each its value, `-> [n]`, same order: a row's
 * value or ABSENT for `one`, the rows' values in the loader's order, possibly none, for `list`.
 *
 * Costs one query, as far as the loader keeps to one. The loader's errors pass through unwrapped; rows that break
 * the contract throw LoaderContractError.
 */
export async function load(
  definition: EntryDefinition,
  addresses: readonly Address[],
  context: unknown,
  telemetry: Emitter,
  purpose: LoadEvent['purpose'],
  attributes: Attributes | undefined,
): Promise<unknown[]> {
  const { cache, name: entry } = definition;
  const startedAtMs = performance.now();
  let rows = 0;
  let error: unknown;
  try {
    const loaded: unknown = await definition.load(
      addresses.map((address) => address.ids),
      context,
    );
    if (!Array.isArray(loaded)) throw notRows(definition, loaded);
    rows = loaded.length;
    return group(definition, addresses, loaded);
  } catch (thrown) {
    error = thrown ?? new LoaderContractError(entry, `A loader throws errors. "${entry}" threw ${describe(thrown)}.`);
    throw thrown;
  } finally {
    const durationMs = performance.now() - startedAtMs;
    telemetry.emit('load', {
      cache,
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

/** The address that a row belongs to, by the entry's `by`. */
function owner(definition: EntryDefinition, row: unknown): string {
  const ids = definition.by(row);
  try {
    return definition.address(ids).id;
  } catch (cause) {
    throw new LoaderContractError(
      definition.name,
      `A row belongs to the ids that \`by\` names. For "${definition.name}" it named none that exist: ` +
        `${(cause as Error).message} Correct \`by\`, or select the columns it reads.`,
    );
  }
}

function notRows(definition: EntryDefinition, loaded: unknown): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `A loader resolves to an array of rows. "${definition.name}" resolved to ${describe(loaded)}. ` +
      'Return the rows of all ids together, an empty array if there are none.',
  );
}

function foreignRow(definition: EntryDefinition, row: unknown): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `A loader returns rows of the ids it was given and no others. "${definition.name}" returned one of ` +
      `${describe(definition.by(row))}, which nobody asked for. Correct the query's condition, or \`by\`.`,
  );
}

function secondRow(definition: EntryDefinition, address: Address): LoaderContractError {
  return new LoaderContractError(
    definition.name,
    `An entry declared with \`one\` has one row at most. "${definition.name}" got two for ${describe(address.ids)}. ` +
      'Correct the query, or declare it with `list`.',
  );
}
