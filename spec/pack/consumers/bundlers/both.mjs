import { GenerationalCache, integer } from 'gencache';
import { manualClock } from 'gencache/testing';
import required from './required.cjs';
import { use } from './use.mjs';

const { memoryStore, observe, onChangeOf } = required;
if (required.GenerationalCache !== GenerationalCache) throw new Error('The bundle holds two copies of a class');
void use({ GenerationalCache, integer, memoryStore, onChangeOf, manualClock, observe });
