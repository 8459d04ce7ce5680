import { ZcowError } from "../base/errors.js";

/** Deepest nesting of descriptions, and most options in one: nobody's disk has more parts. */
const MAX_DEPTH = 16;
const MAX_OPTIONS = 1000;

/**
 * The options that describe a disk and what it is made of, as the stock tools write them: `driver=qcow2,file.driver=file,
 * file.filename=disk.qcow2`, or the same as an object of JSON. Each option is taken once; what nobody took is refused in the end, so
 * that a misspelt option is never passed over.
 */
export class NodeOptions {
  readonly #left: Map<string, string>;

  constructor(options: Iterable<readonly [name: string, value: string]> = []) {
    this.#left = new Map(options);
  }

  /** The options of a JSON text (what follows `json:`). Fails with `FILE_REFERENCE`. */
  static ofJson(text: string): NodeOptions {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw badDescription(text, reason, `Could not parse the JSON options: ${reason}`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw badDescription(text, "it is no JSON object", "Invalid JSON object given");
    }
    return new NodeOptions(flatten(value, "", 0));
  }

  /** The options that nobody took yet, by name. */
  get left(): ReadonlyMap<string, string> {
    return this.#left;
  }

  get(name: string): string | undefined {
    return this.#left.get(name);
  }

  take(name: string): string | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  /** An option that is on or off. Fails with `INVALID_ARGUMENT`. */
  takeSwitch(name: string): boolean | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    if (["on", "yes", "true", "y"].includes(value)) return true;
    if (["off", "no", "false", "n"].includes(value)) return false;
    const stockText = `Parameter '${name}' expects 'on' or 'off'`;
    throw new ZcowError("INVALID_ARGUMENT", `option ${name}: '${value}' is neither 'on' nor 'off'`, {
      data: { option: name, value },
      stockText,
    });
  }

  /** A whole number, plain or with a suffix of size as `parse` reads it. Fails with `INVALID_ARGUMENT`. */
  takeNumber(name: string, parse: (text: string) => number | undefined): number | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    const number = parse(value);
    if (number !== undefined && Number.isSafeInteger(number)) return number;
    throw new ZcowError("INVALID_ARGUMENT", `option ${name}: '${value}' is no number that can be counted`, {
      data: { option: name, value },
      stockText: `Parameter '${name}' expects a non-negative number below 2^64`,
    });
  }

  /** Takes all options that start with `name` and a dot, without these; undefined when there are none. */
  takeChild(name: string): NodeOptions | undefined {
    const prefix = `${name}.`;
    const found = [...this.#left].filter(([key]) => key.startsWith(prefix));
    for (const [key] of found) this.#left.delete(key);
    return found.length === 0
      ? undefined
      : new NodeOptions(found.map(([key, value]) => [key.slice(prefix.length), value]));
  }

  /** Takes the elements of a list, `name.0.*`, `name.1.*` and so on. */
  takeList(name: string): NodeOptions[] {
    const list = this.takeChild(name) ?? new NodeOptions();
    const elements: NodeOptions[] = [];
    let element = list.takeChild("0");
    while (element !== undefined) {
      elements.push(element);
      element = list.takeChild(String(elements.length));
    }
    return elements;
  }

  /** Refuses what is left (`UNKNOWN_OPTION`). `driver`: who knows no such option. */
  refuseLeft(driver: string, kind: "format" | "protocol"): void {
    const [name] = this.#left.keys();
    if (name === undefined) return;
    const verb = kind === "format" ? "does not" : "doesn't";
    throw new ZcowError("UNKNOWN_OPTION", `the driver '${driver}' has no option '${name}'`, {
      data: { option: name, value: this.#left.get(name) ?? "" },
      stockText: `Block ${kind} '${driver}' ${verb} support the option '${name}'`,
    });
  }
}

function flatten(value: object, prefix: string, depth: number): [name: string, value: string][] {
  if (depth >= MAX_DEPTH)
    throw badDescription(prefix, `it is nested deeper than ${MAX_DEPTH} levels`, "Nesting is too deep");
  const found = Object.entries(value).flatMap(([name, entry]: [string, unknown]) => option(name, entry, prefix, depth));
  if (found.length > MAX_OPTIONS)
    throw badDescription(prefix, `it has more than ${MAX_OPTIONS} options`, "Too many options");
  return found;
}

function option(name: string, value: unknown, prefix: string, depth: number): [name: string, value: string][] {
  if (typeof value === "object" && value !== null) return flatten(value, `${prefix}${name}.`, depth + 1);
  return [[`${prefix}${name}`, textOf(value)]];
}

/** Nothing where something could be, as in `"backing": null`, is the empty text. */
function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "number" ? String(value) : "";
}

function badDescription(text: string, reason: string, stockText: string): ZcowError {
  return new ZcowError("FILE_REFERENCE", `the description '${text}' cannot be used: ${reason}`, {
    data: { value: text },
    stockText,
  });
}
