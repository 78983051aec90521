module.exports = { ...require('gencache'), ...require('gencache/knex'), ...require('gencache/testing') };
