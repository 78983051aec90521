export { coverage, type CoverageOptions } from './coverage.js';
export type { Sample } from './read-entry.js';
export type {
  CoverageFinding,
  CoverageKind,
  CoverageReport,
  EntryCoverage,
  GapKind,
  Proposal,
  TableCoverage,
  UnknownKind,
} from './report.js';
