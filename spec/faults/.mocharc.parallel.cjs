/**
 * `npm run test:faults`: two files at a time, which wait for most of their time, as `.mocharc.parallel.cjs` of the root
 * has it for `npm test`. One at a time on servers that REDIS_URL or DATABASE_URL names.
 */
const { REDIS_URL, DATABASE_URL } = process.env;

const jobs = Number((process.env.GENCACHE_SPEC_WORKERS ??= '2'));

module.exports = { ...require('./.mocharc.json'), parallel: !REDIS_URL && !DATABASE_URL, jobs };
