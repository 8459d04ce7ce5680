/** The command line itself is wrong. Each line of the message is printed behind the name of the program. `hint` adds the line that points to `--help`. */
export class UsageError extends Error {
  readonly hint: boolean;

  constructor(message: string, hint = true) {
    super(message);
    this.hint = hint;
  }
}
