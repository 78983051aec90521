/** `gencache/testing`: for tests of code around a cache. Loads no peer. */
export { bypassStore } from './bypass-store.js';
export { type ManualClock, manualClock } from './manual-clock.js';
export { type Observable, type Observation, observe } from './observe.js';
