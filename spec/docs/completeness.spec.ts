/** What the library can say is in the documentation: its errors, its counters, its events, its findings. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { COUNTERS } from '../../lib/index.js';
import { ROOT } from './blocks.js';

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

/** The text of the cells of the first column, without their marks: of every table of a document. */
function firstCells(file: string): string[] {
  return [...read(file).matchAll(/^\| `?([^|`]+?)`? +\|/gm)].map(([, cell]) => cell!);
}

/** What a source has between quotes, after a word. */
function quoted(text: string, after: RegExp): string[] {
  return [...new Set([...text.matchAll(after)].map(([, name]) => name!))];
}

describe('docs/errors.md', () => {
  const page = read('docs/errors.md');

  it('has a row for every code of an error', () => {
    const [, table] = /export const ERROR_CODES = \{([^}]*)\}/.exec(read('lib/errors/errors.ts')) ?? [];
    const codes = quoted(table!, /^ {2}([A-Z_]+): /gm);
    expect(codes).to.have.length.above(10);
    const rows = quoted(page, /^\|[^|]*\| `([A-Z_]+)` +\|/gm);
    expect(rows.toSorted()).to.deep.equal(codes.toSorted());
  });

  it('names every class of an error that can be imported', () => {
    const classes = sources('lib').flatMap((file) => quoted(read(file), /^export class (\w+Error) extends \w*Error/gm));
    const internal = ['UsageError', 'DisplacedError', 'MovingSlotError'];
    const named = classes.filter((name) => !internal.includes(name) && name !== 'GencacheError');
    expect(named).to.have.length.above(10);
    expect(named.filter((name) => !firstCells('docs/errors.md').includes(name))).to.deep.equal([]);
  });
});

describe('docs/telemetry.md', () => {
  const cells = firstCells('docs/telemetry.md');

  it('has a row for every counter', () => {
    expect(Object.keys(COUNTERS).filter((counter) => !cells.includes(counter))).to.deep.equal([]);
  });

  it('has a row for every event of a cache and of a relay', () => {
    const names = (file: string) => quoted(read(file), /^ {2}(\w+): \[/gm);
    const events = [...names('lib/telemetry/events.ts'), ...names('lib/knex/relay/relay-events.ts')];
    expect(events).to.have.length.above(15);
    expect(events.filter((event) => !cells.includes(event))).to.deep.equal([]);
  });
});

describe('docs/operations.md', () => {
  const page = read('docs/operations.md');

  it('has a row for every check of the doctor', () => {
    const findings = sources('lib/cli/doctor').flatMap((file) =>
      quoted(read(file), /\b(?:ok|warn|broken)\)?\(\s*'([^']+)'/g),
    );
    const checks = [...new Set(findings)];
    expect(checks).to.have.length.above(12);
    const cells = firstCells('docs/operations.md');
    expect(checks.filter((check) => !cells.includes(check))).to.deep.equal([]);
  });

  it('has a row for every cause of a repair', () => {
    const [, union] = /export type RepairCause =([^;]*);/.exec(read('lib/knex/relay/trust.ts')) ?? [];
    const causes = quoted(union!, /'(\w+)'/g);
    expect(causes).to.have.length.above(2);
    expect(causes.filter((cause) => !page.includes(`\`${cause}\``))).to.deep.equal([]);
  });

  it('has a section for every kind of problem that triggers have', () => {
    const kinds = [
      'lib/knex/triggers/check-triggers.ts',
      'lib/knex/triggers/named-tables.ts',
      'lib/knex/triggers/trigger-plan.ts',
    ].flatMap((file) =>
      quoted(read(file), /'((?:table|column|trigger|function|primary key|foreign|looked-up table) [a-z ]+)'/g),
    );
    expect(kinds).to.have.length.above(6);
    expect([...new Set(kinds)].filter((kind) => !page.includes(`\`${kind}\``))).to.deep.equal([]);
  });
});

describe('docs/coverage.md', () => {
  it('has a row for every kind of finding', () => {
    const [unions] = /export type CoverageKind[\s\S]*?export interface/.exec(read('lib/knex/coverage/report.ts')) ?? [];
    const kinds = quoted(unions!, /\| '([a-z ]+)'/g);
    expect(kinds).to.have.length.above(20);
    expect(kinds.filter((kind) => !firstCells('docs/coverage.md').includes(kind))).to.deep.equal([]);
  });
});

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}
