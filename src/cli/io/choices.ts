import { ZcowError } from "../../base/errors.js";
import { HARMLESS_OF_QCOW2 } from "../../formats/nodes/open-node.js";
import { cacheMode } from "../cache-mode.js";
import { splitOptionList } from "../image-options.js";
import { UsageError } from "../usage-error.js";
import { type IoChoice, PLAIN_CHOICE } from "./image.js";

/** What the options of the program and of the command `open` say, both of which open images. */
export interface OpenRequest {
  readonly path: string | undefined;
  readonly format: string | undefined;
  /** Lists of driver options. */
  readonly lists: readonly string[];
  readonly readOnly: boolean;
  readonly forceShare: boolean;
  readonly temporary: boolean;
  readonly copyOnRead: boolean;
  readonly cache: string | undefined;
  readonly discard: string | undefined;
  readonly aio: string | undefined;
}

type Pairs = readonly (readonly [name: string, value: string])[];

const DISCARDS: Readonly<Record<string, boolean>> = { ignore: false, off: false, unmap: true, on: true };
const AIO = ["threads", "native", "io_uring"];

/** The disk that is asked for. Throws usage errors, and `INVALID_ARGUMENT` for driver options that contradict. */
export function openChoice(request: OpenRequest): IoChoice {
  // As in the stock tool: who does not choose gets what is safe, every write durable when it is acknowledged.
  const cache = cacheMode(request.cache ?? "writethrough");
  if (cache === undefined) throw new UsageError(`Invalid cache option: ${request.cache}`, false);
  const discard = request.discard === undefined ? true : discardMode(request.discard);
  if (discard === undefined) throw new UsageError(`Invalid discard option: ${request.discard}`, false);
  if (request.aio !== undefined && !AIO.includes(request.aio)) {
    throw new UsageError(`Invalid aio option: ${request.aio}`, false);
  }
  const listed = request.lists.flatMap(splitOptionList);
  const options: Pairs = request.format === undefined ? listed : [...listed, ["driver", request.format]];
  const { path, readOnly, forceShare, temporary, copyOnRead } = request;
  return { ...PLAIN_CHOICE, path, options, cache, discard, readOnly, forceShare, temporary, copyOnRead };
}

/** Refuses ways to reach the disk that contradict each other, as the stock tool does when it opens the disk. */
export function requireAio(aio: string | undefined, { cache, options }: IoChoice): void {
  const direct = options.findLast(([name]) => name === "cache.direct")?.[1];
  if (aio !== "native" || cache.direct || direct === "on") return;
  throw new ZcowError("INVALID_ARGUMENT", "native AIO needs the page cache to be bypassed", {
    data: { option: "aio", value: aio },
    stockText: "aio=native was specified, but it requires cache.direct=on, which was not specified.",
  });
}

function discardMode(name: string): boolean | undefined {
  return Object.hasOwn(DISCARDS, name) ? DISCARDS[name] : undefined;
}

/** `choice` with what its driver options say about access, which they say better than the options of the command. */
export function withDriverOptions(choice: IoChoice): IoChoice {
  const last = (name: string): string | undefined => choice.options.findLast(([known]) => known === name)?.[1];
  const isOn = (name: string, otherwise: boolean): boolean => {
    const value = last(name);
    return value === undefined ? otherwise : onOff(name, value);
  };
  const discardName = last("discard");
  const discard = discardName === undefined ? choice.discard : discardMode(discardName);
  if (discard === undefined) throw invalid("discard", discardName ?? "", "Invalid discard option");
  return {
    ...choice,
    readOnly: isOn("read-only", choice.readOnly),
    forceShare: isOn("force-share", choice.forceShare),
    cache: { ...choice.cache, direct: isOn("cache.direct", choice.cache.direct) },
    discard,
    zeroDetection: zeroDetection(last("detect-zeroes"), discard),
  };
}

function zeroDetection(name: string | undefined, discard: boolean): IoChoice["zeroDetection"] {
  if (name === undefined) return "off";
  if (name !== "off" && name !== "on" && name !== "unmap") {
    throw invalid("detect-zeroes", name, `Parameter 'detect-zeroes' does not accept value '${name}'`);
  }
  if (name === "unmap" && !discard) {
    const text = "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap";
    throw invalid("detect-zeroes", name, text);
  }
  return name;
}

function onOff(name: string, value: string): boolean {
  if (value === "on" || value === "off") return value === "on";
  throw invalid(name, value, `Parameter '${name}' expects 'on' or 'off'`);
}

/** Options that can be given to a disk that is open. */
const CHANGEABLE: ReadonlySet<string> = new Set([
  ...HARMLESS_OF_QCOW2,
  "l2-cache-size",
  "cache-size",
  "keep-zone-space",
  "offset",
  "size",
  "read-only",
  "force-share",
  "cache.direct",
  "cache.no-flush",
  "discard",
  "detect-zeroes",
]);

/** What `reopen` is told. */
export interface ReopenRequest {
  readonly readOnly: boolean | undefined;
  readonly cache: string | undefined;
  readonly lists: readonly string[];
}

/** `choice` as it is to be from now on. Throws usage errors, and `INVALID_ARGUMENT` for options that cannot change. */
export function reopenChoice(choice: IoChoice, { readOnly, cache: name, lists }: ReopenRequest): IoChoice {
  const cache = name === undefined ? choice.cache : cacheMode(name);
  if (cache === undefined) throw new UsageError(`Invalid cache option: ${name}`, false);
  const changes = lists.flatMap(splitOptionList);
  const changed = new Set(changes.map(([option]) => option));
  if (readOnly !== undefined && changed.has("read-only")) {
    throw new UsageError("Cannot set both -r/-w and 'read-only'", false);
  }
  if (name !== undefined && (changed.has("cache.direct") || changed.has("cache.no-flush"))) {
    throw new UsageError("Cannot set both -c and the cache options", false);
  }
  for (const [option, value] of changes) {
    if (!CHANGEABLE.has(option)) throw invalid(option, value, `Cannot change the option '${option}'`);
  }
  const overridden = [
    ...changed,
    ...(readOnly === undefined ? [] : ["read-only"]),
    ...(name === undefined ? [] : ["cache.direct"]),
  ];
  const options = [...choice.options.filter(([option]) => !overridden.includes(option)), ...changes];
  return withDriverOptions({ ...choice, options, cache, readOnly: readOnly ?? choice.readOnly });
}

function invalid(option: string, value: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", stockText, { data: { option, value }, stockText });
}
