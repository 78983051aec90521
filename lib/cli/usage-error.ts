/** A misuse of the command line. The program prints its message and the command's usage, and exits with 64. */
export class UsageError extends Error {}
