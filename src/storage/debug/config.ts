import { ZcowError } from "../../base/errors.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { type DebugEvent, debugEvent } from "./events.js";
import { type DebugRules, type InjectRule, isErrno, REQUEST_TYPES, type RequestType, type StateRule } from "./rules.js";

const EIO = 5;

/** The settings of one rule, by name. */
export type RuleSettings = ReadonlyMap<string, string>;

interface Section {
  readonly kind: string;
  readonly settings: Map<string, string>;
}

/**
 * The rules of a configuration file: sections `[inject-error]` and `[set-state]`, in each lines `name = "value"`; `#` begins a comment.
 * Fails with `INVALID_ARGUMENT`.
 */
export function parseDebugConfig(text: string, path: string): DebugRules {
  const sections = sectionsOf(text, path);
  return {
    inject: sections.filter(({ kind }) => kind === "inject-error").map(({ settings }) => injectRule(settings)),
    states: sections.filter(({ kind }) => kind === "set-state").map(({ settings }) => stateRule(settings)),
  };
}

function sectionsOf(text: string, path: string): Section[] {
  const sections: Section[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const heading = /^\[([a-z-]+)(?: "[^"]*")?\]$/.exec(trimmed)?.[1];
    const setting = /^([\w-]+)\s*=\s*"([^"]*)"$/.exec(trimmed);
    const current = sections.at(-1);
    if (heading === "inject-error" || heading === "set-state") {
      sections.push({ kind: heading, settings: new Map() });
    } else if (setting !== null && current !== undefined) {
      current.settings.set(setting[1] ?? "", setting[2] ?? "");
    } else {
      const isOrphan = heading === undefined && current === undefined;
      const what = isOrphan
        ? "no group defined"
        : heading === undefined
          ? "parse error"
          : `There is no option group '${heading}'`;
      throw bad(`${path}, line ${index + 1}: ${what}`, what);
    }
  }
  return sections;
}

/** A rule of a configuration, from its settings. Fails with `INVALID_ARGUMENT`. */
export function injectRule(settings: RuleSettings): InjectRule {
  refuseUnknown(settings, ["event", "state", "iotype", "errno", "sector", "once", "immediately"]);
  const sector = number(settings, "sector", -1);
  // A fault is always told after the call returned: whether it was immediate, nobody here can see.
  onOff(settings, "immediately");
  const errno = number(settings, "errno", EIO);
  if (!isErrno(errno)) throw bad(`errno: this system has no error ${errno}`, "Invalid error code");
  return {
    event: eventOf(settings),
    state: number(settings, "state", 0),
    type: typeOf(settings.get("iotype")),
    errno,
    offset: sector === -1 ? undefined : sector * SECTOR_SIZE,
    once: onOff(settings, "once"),
  };
}

/** A change of state, from its settings. Fails with `INVALID_ARGUMENT`. */
export function stateRule(settings: RuleSettings): StateRule {
  refuseUnknown(settings, ["event", "state", "new_state"]);
  return { event: eventOf(settings), state: number(settings, "state", 0), next: number(settings, "new_state", 0) };
}

function refuseUnknown(settings: RuleSettings, known: readonly string[]): void {
  for (const name of settings.keys()) {
    if (!known.includes(name)) throw bad(`a rule has no setting '${name}'`, `Invalid parameter '${name}'`);
  }
}

function eventOf(settings: RuleSettings): DebugEvent {
  const name = settings.get("event");
  if (name === undefined) throw bad("a rule names no event", "Missing event name for rule");
  const event = debugEvent(name);
  if (event === undefined) throw bad(`there is no event '${name}'`, `invalid parameter value: ${name}`);
  return event;
}

function typeOf(name: string | undefined): RequestType | undefined {
  if (name === undefined) return undefined;
  const type = REQUEST_TYPES.find((known) => known === name);
  if (type === undefined)
    throw bad(`iotype: there is no kind of request '${name}'`, `invalid parameter value: ${name}`);
  return type;
}

function number(settings: RuleSettings, name: string, otherwise: number): number {
  const text = settings.get(name);
  if (text === undefined) return otherwise;
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  throw bad(`${name}: '${text}' is no number`, `Parameter '${name}' expects a number`);
}

function onOff(settings: RuleSettings, name: string): boolean {
  const text = settings.get(name) ?? "off";
  if (text === "on" || text === "off") return text === "on";
  throw bad(`${name}: '${text}' is neither on nor off`, `Parameter '${name}' expects 'on' or 'off'`);
}

function bad(message: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `fault injection: ${message}`, { data: { option: "config" }, stockText });
}
