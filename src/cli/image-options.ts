import { splitOptionList as optionsOfList } from "../base/option-list.js";
import { UsageError } from "./usage-error.js";

/** The options of a list. Throws a usage error in the words of the stock tools for a list that is none. */
export function splitOptionList(text: string): [name: string, value: string][] {
  const options = optionsOfList(text);
  if (options === undefined) throw new UsageError(`Invalid option list: ${text}`, false);
  return options;
}
