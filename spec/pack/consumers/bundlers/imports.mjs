import { GenerationalCache, integer, memoryStore } from 'gencache';
import { onChangeOf } from 'gencache/knex';
import { manualClock, observe } from 'gencache/testing';
import { use } from './use.mjs';

void use({ GenerationalCache, integer, memoryStore, onChangeOf, manualClock, observe });
