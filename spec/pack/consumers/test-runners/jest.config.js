const presets = [['@babel/preset-env', { targets: { node: 'current' } }]];
const tsconfig = {
  types: ['jest', 'node'],
  module: 'commonjs',
  moduleResolution: 'node10',
  esModuleInterop: true,
  strict: true,
};
const babel = { '\\.js$': ['babel-jest', { presets, babelrc: false, configFile: false }] };

module.exports = {
  projects: [
    { displayName: 'babel', testMatch: ['<rootDir>/babel/*.test.js'], transform: babel },
    {
      displayName: 'ts-jest',
      testMatch: ['<rootDir>/ts/*.test.ts'],
      transform: { '\\.ts$': ['ts-jest', { tsconfig }] },
    },
    { displayName: 'ES modules', testMatch: ['<rootDir>/esm/*.test.mjs'], transform: {} },
    {
      displayName: 'fake timers from the start',
      testMatch: ['<rootDir>/from-start/*.test.js'],
      transform: {},
      fakeTimers: { enableGlobally: true },
    },
  ],
};
