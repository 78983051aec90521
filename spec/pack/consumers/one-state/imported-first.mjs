import * as core from 'gencache';
import * as knex from 'gencache/knex';
import * as redis from 'gencache/redis';
import * as testing from 'gencache/testing';
import * as workflowEngine from 'gencache/workflow-engine';
import { createRequire } from 'node:module';
import { compare, SUBPATHS } from './compare.cjs';

const require = createRequire(import.meta.url);
const required = Object.fromEntries(SUBPATHS.map((subpath) => [subpath, require(`gencache${subpath}`)]));

await compare(required, {
  '': core,
  '/knex': knex,
  '/redis': redis,
  '/testing': testing,
  '/workflow-engine': workflowEngine,
});
