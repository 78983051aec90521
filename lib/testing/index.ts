export { bypassStore } from './bypass-store.js';
export { type ManualClock, manualClock } from './manual-clock.js';
export { type Observable, type Observation, observe } from './observe.js';
