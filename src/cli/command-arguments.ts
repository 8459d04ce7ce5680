import type { CommandContext } from "./context.js";
import { helpText } from "./help-text.js";
import { type CommandManual, optionsOf } from "./manual.js";
import { isGiven, type ParsedArguments, parseArguments } from "./options.js";

/**
 * The arguments of the command that `manual` describes; undefined when they ask for help, which is printed then. `call`: the words that call
 * the command, as for {@link helpText}. Fails as {@link parseArguments}.
 */
export function commandArguments(
  args: readonly string[],
  manual: CommandManual,
  context: CommandContext,
  call?: string,
): ParsedArguments | undefined {
  const parsed = parseArguments(args, optionsOf(manual));
  if (!isGiven(parsed, "help")) return parsed;
  context.output.out(helpText(manual, context, call));
  return undefined;
}
