/** `--object`, `--tls-creds` and `--tls-authz`, as the stock tools take them. */
import { readFileSync } from "node:fs";
import { pskCredentials, type TlsServerCredentials, x509Credentials } from "../servers/nbd/tls-credentials.js";
import { splitOptionList } from "./image-options.js";
import { allValues, lastValue, type ParsedArguments } from "./options.js";
import { UsageError } from "./usage-error.js";

interface DefinedObject {
  readonly type: string;
  readonly id: string;
  readonly options: ReadonlyMap<string, string>;
}

const TYPES = ["tls-creds-x509", "tls-creds-psk", "authz-simple", "authz-list", "authz-list-file", "secret"];

/** The objects that were defined, by id. */
export function definedObjects(parsed: ParsedArguments): ReadonlyMap<string, DefinedObject> {
  const objects = new Map<string, DefinedObject>();
  for (const text of allValues(parsed, "object")) {
    const [first, ...rest] = splitOptionList(text);
    const type = first?.[0] === "qom-type" ? first[1] : (first?.[0] ?? "");
    if (!TYPES.includes(type)) throw new UsageError(`Parameter 'qom-type' does not accept value '${type}'`, false);
    const options = new Map(rest);
    const id = options.get("id");
    if (id === undefined) throw new UsageError("Parameter 'id' is missing", false);
    if (objects.has(id))
      throw new UsageError(`attempt to add duplicate property '${id}' to object (type 'container')`, false);
    objects.set(id, { type, id, options });
  }
  return objects;
}

/** What proves clients and server to each other; undefined without TLS. */
export function tlsServerOptions(parsed: ParsedArguments): TlsServerCredentials | undefined {
  const objects = definedObjects(parsed);
  const id = lastValue(parsed, "tls-creds");
  const authzId = lastValue(parsed, "tls-authz");
  if (id === undefined) {
    if (authzId !== undefined) throw new UsageError("--tls-authz is not permitted without --tls-creds", false);
    return undefined;
  }
  const { type, options } = credentialsObject(objects, id, "server");
  const directory = options.get("dir");
  if (directory === undefined) throw new UsageError(`TLS credentials '${id}' need a directory: dir=PATH`, false);
  if (type === "tls-creds-psk") return pskCredentials(directory);
  const permits = authzId === undefined ? undefined : permission(objects, authzId);
  const isOn = (name: string): boolean => (options.get(name) ?? "on") === "on";
  return x509Credentials(directory, { verifyPeer: isOn("verify-peer"), checkDates: isOn("sanity-check"), permits });
}

/** The TLS credentials called `id`, for one end of connections. */
export function credentialsObject(
  objects: ReadonlyMap<string, DefinedObject>,
  id: string,
  endpoint: "server" | "client",
): DefinedObject {
  const found = objects.get(id);
  if (found === undefined) throw new UsageError(`Failed to get TLS creds: No TLS credentials with id '${id}'`, false);
  if (!found.type.startsWith("tls-creds-")) {
    throw new UsageError(`Failed to get TLS creds: Object with id '${id}' is not TLS credentials`, false);
  }
  if ((found.options.get("endpoint") ?? "client") !== endpoint) {
    throw new UsageError(`Failed to get TLS creds: Expecting TLS credentials with a ${endpoint} endpoint`, false);
  }
  return found;
}

function permission(objects: ReadonlyMap<string, DefinedObject>, id: string): (name: string) => boolean {
  const authz = objects.get(id);
  if (authz === undefined) throw new UsageError(`Cannot find QAuthZ object ID ${id}`, false);
  const { type, options } = authz;
  if (type === "authz-simple") {
    const identity = options.get("identity");
    if (identity === undefined) throw new UsageError(`authz-simple '${id}' needs an identity`, false);
    return (name) => name === identity;
  }
  if (type === "authz-list-file") return listPermission(rulesOfFile(options.get("filename") ?? ""));
  if (type === "authz-list") return listPermission(rulesOfOptions(options));
  throw new UsageError(`Object '${id}' does not decide who may connect`, false);
}

interface Rule {
  readonly match: string;
  readonly policy: "allow" | "deny";
  readonly format: "exact" | "glob";
}

interface RuleList {
  readonly policy: "allow" | "deny";
  readonly rules: readonly Rule[];
}

/** The first rule that fits decides. */
function listPermission({ policy, rules }: RuleList): (name: string) => boolean {
  return (name) => {
    const rule = rules.find(({ match, format }) => (format === "exact" ? match === name : globFits(match, name)));
    return (rule?.policy ?? policy) === "allow";
  };
}

/** `*` stands for any text, `?` for one character. */
function globFits(glob: string, name: string): boolean {
  // Greedy, with the last star remembered: never more than length times length steps.
  let at = 0;
  let star = -1;
  let mark = 0;
  let index = 0;
  while (index < name.length) {
    if (glob[at] === "*") {
      star = at;
      mark = index;
      at += 1;
    } else if (glob[at] === "?" || glob[at] === name[index]) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      at = star + 1;
      mark += 1;
      index = mark;
    } else {
      return false;
    }
  }
  while (glob[at] === "*") at += 1;
  return at === glob.length;
}

function rulesOfFile(path: string): RuleList {
  let tree: unknown;
  try {
    tree = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new UsageError(`Unable to load access list '${path}': ${(error as Error).message}`, false);
  }
  const { policy, rules } = tree as { policy?: unknown; rules?: unknown };
  const list = Array.isArray(rules) ? rules : [];
  return { policy: policyOf(policy), rules: list.map((rule) => ruleOf(rule as Record<string, unknown>)) };
}

/** `rules.0.match=...,rules.0.policy=allow,...` */
function rulesOfOptions(options: ReadonlyMap<string, string>): RuleList {
  const rules: Record<string, unknown>[] = [];
  for (let index = 0; options.has(`rules.${index}.match`); index++) {
    rules.push({
      match: options.get(`rules.${index}.match`),
      policy: options.get(`rules.${index}.policy`),
      format: options.get(`rules.${index}.format`),
    });
  }
  return { policy: policyOf(options.get("policy")), rules: rules.map(ruleOf) };
}

function ruleOf(rule: Record<string, unknown>): Rule {
  const { match, format } = rule;
  if (typeof match !== "string") throw new UsageError("a rule of an access list has no 'match'", false);
  if (format !== undefined && format !== "exact" && format !== "glob") {
    throw new UsageError("the 'format' of a rule is neither exact nor glob", false);
  }
  return { match, policy: policyOf(rule["policy"]), format: format ?? "exact" };
}

function policyOf(policy: unknown): "allow" | "deny" {
  if (policy === undefined) return "deny";
  if (policy === "allow" || policy === "deny") return policy;
  throw new UsageError("the 'policy' of an access list is neither allow nor deny", false);
}
