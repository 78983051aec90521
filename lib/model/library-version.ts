/** The version of this package, as package.json has it; a spec compares the two. */
export const LIBRARY_VERSION = '0.1.0';
