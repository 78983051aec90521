const { GenerationalCache, integer, memoryStore } = require('gencache');
const { onChangeOf } = require('gencache/knex');
const { manualClock, observe } = require('gencache/testing');
const { use } = require('./use.mjs');

void use({ GenerationalCache, integer, memoryStore, onChangeOf, manualClock, observe });
