import type { CommandContext } from "./context.js";
import { printError } from "./failure.js";
import { type CommandManual, optionGroups } from "./manual.js";
import { OptionError } from "./options.js";
import { UsageError } from "./usage-error.js";

/** Options that would change what the stock tool's users see of a disk; it refuses them as it does all that it does not know. */
const NOT_STOCK: ReadonlySet<string> = new Set(["resizable"]);

/** What `manual` says for who calls it by the name of the stock tool. */
export function stockNbdManual(manual: CommandManual): CommandManual {
  const options = optionGroups(manual).map((group) => ({
    ...group,
    options: group.options.filter(({ name }) => !NOT_STOCK.has(name)),
  }));
  return { ...manual, options };
}

/** Prints what the stock tool answers to a command line that it does not understand; false when `error` is another one. */
export function printStockUsage(error: unknown, context: CommandContext): boolean {
  if (!(error instanceof UsageError) || !error.hint) return false;
  const hint = `Try \`${context.program} --help' for more information.`;
  if (error instanceof OptionError) {
    printError(context, error.getoptText);
    printError(context, hint);
  } else {
    printError(context, error.message);
    context.output.err(`${hint}\n`);
  }
  return true;
}
