import type { StandardSchemaV1 } from '@standard-schema/spec';

/**
 * Checks a value against a Standard Schema (zod, valibot, arktype and others; https://standardschema.dev). Returns
 * undefined if it conforms, else a message with the first issue and its path. The schema's output is not used.
 */
export async function mismatch(schema: StandardSchemaV1, value: unknown): Promise<string | undefined> {
  let issues;
  try {
    ({ issues } = await schema['~standard'].validate(value));
  } catch (thrown) {
    issues = [{ message: `the schema threw ${String(thrown)}`, path: [] }];
  }
  if (!issues) return undefined;
  const first = issues[0];
  const path = (first?.path ?? []).map((part) => String(typeof part === 'object' ? part.key : part)).join('.');
  return (
    `A value must match the entry's schema, but does not${path === '' ? '' : ` at ${path}`}: ` +
    `${first?.message ?? 'the schema named no issue'}. Raise the cache's schemaVersion when the shape of values changes.`
  );
}
