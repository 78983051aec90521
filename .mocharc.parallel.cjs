/**
 * `npm test`: several files at a time, each worker on a Redis and a PostgreSQL of its own (spec/support/setup.ts).
 *
 * Servers that REDIS_URL or DATABASE_URL names are the same for all workers, and files would disturb each other on
 * them: then it is one file at a time.
 */
const { REDIS_URL, DATABASE_URL } = process.env;

const jobs = Number((process.env.GENCACHE_SPEC_WORKERS ??= '3'));

module.exports = { ...require('./.mocharc.json'), parallel: !REDIS_URL && !DATABASE_URL, jobs };
