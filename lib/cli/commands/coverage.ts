import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe } from '../../errors/describe.js';
import { coverage, type CoverageOptions } from '../../knex/coverage/coverage.js';
import { type Command, FAILED, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { DATABASE_OPTIONS, JSON_OPTION } from '../option.js';
import { UsageError } from '../usage-error.js';

export const coverageCommand: Command = {
  words: ['coverage'],
  summary: 'Compares the tables and columns that the entries of a cache read with those that triggers watch',
  needs: '--module FILE',
  options: {
    module: { value: 'FILE', help: 'a module of yours that exports `cache` and `samples`' },
    accept: { value: 'SUBJECT', multiple: true, help: 'an unknown that you vouch for: "function price(integer)"' },
    migration: { help: 'prints the migration for what is missing, and nothing else' },
    json: JSON_OPTION,
    ...DATABASE_OPTIONS,
  },
  about:
    'Runs each loader once with the ids of `samples`, in a read-only transaction, and asks PostgreSQL what its statements\n' +
    'depend on. It changes nothing. The module may export `accept`, too. A module in TypeScript needs a loader:\n' +
    "NODE_OPTIONS='--import tsx'. Exits with 1 for a gap, and for what can not be known.",
  example: 'gencache coverage --module ./dist/coverage.js',
  async run(args, terminal) {
    const { cache, samples, accept = [] } = await load(args.requiredText('module', 'the path of a module'));
    return withDatabase(args, terminal, async ({ db, outbox }) => {
      const accepted = [...accept, ...args.texts('accept')];
      const { text, ...report } = await coverage(cache, { db, outbox, samples, accept: accepted });
      if (args.flag('json')) terminal.out(JSON.stringify(report));
      else if (args.flag('migration')) terminal.out(report.migration);
      else terminal.out(text);
      return report.ok ? OK : FAILED;
    });
  },
};

interface Exports {
  readonly cache: object;
  readonly samples: CoverageOptions['samples'];
  readonly accept?: readonly string[];
}

/** `import()`, which the compiler would make `require()` in CommonJS: that loads no URL, and no module with an `await` at its top. */
// oxlint-disable-next-line no-implied-eval -- a constant text
const importModule = new Function('url', 'return import(url)') as (url: string) => Promise<unknown>;

/** The exports of the module, or the properties of its default export. Throws UsageError without them. */
async function load(path: string): Promise<Exports> {
  const file = resolve(path);
  const loaded = (await importModule(pathToFileURL(file).href)) as Partial<Exports> & { default?: Partial<Exports> };
  const found = loaded.cache === undefined ? loaded.default : loaded;
  if (typeof found?.cache === 'object' && typeof found.samples === 'object') return found as Exports;
  throw new UsageError(
    `--module must be a module that exports \`cache\` and \`samples\`, but got ${describe(path)}, which exports ` +
      `${Object.keys(loaded).join(', ') || 'nothing'}. Export both: \`export const samples = { customer: 42 }\`.`,
  );
}
