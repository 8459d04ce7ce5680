import { UsageError } from "./usage-error.js";

/** An image described by driver options: `driver=qcow2,file.filename=disk.qcow2`. */
export interface ImageDescription {
  readonly path: string | undefined;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  readonly forceShare: boolean;
}

/**
 * Splits "a=1,b=2" as the stock tools do: a doubled comma stands for a comma, a name without a value
 * means "on", and "no" before a name means "off".
 */
export function splitOptionList(text: string): [name: string, value: string][] {
  const pieces = text.replaceAll(",,", "\0").split(",");
  if (pieces[0] === "" || pieces.at(-1) === "") throw new UsageError(`Invalid option list: ${text}`, false);
  return pieces.map((piece) => {
    const whole = piece.replaceAll("\0", ",");
    const equals = whole.indexOf("=");
    if (equals >= 0) return [whole.slice(0, equals), whole.slice(equals + 1)];
    return whole.startsWith("no") ? [whole.slice(2), "off"] : [whole, "on"];
  });
}

const FILE_DRIVERS = new Set(["file", "host_device"]);

/** Reads the options of `--image-opts` and of the exerciser's `open -o`. */
export function parseImageDescription(text: string | undefined): ImageDescription {
  let path: string | undefined;
  let format: string | undefined;
  const flags = new Map<string, boolean>();
  for (const [name, value] of text === undefined ? [] : splitOptionList(text)) {
    if (name === "driver") format = FILE_DRIVERS.has(value) ? "raw" : value;
    else if (name === "file.filename" || name === "filename" || name === "file") path = value;
    else if (name === "read-only" || name === "force-share") flags.set(name, onOff(name, value));
    else if (name !== "file.driver" || !FILE_DRIVERS.has(value)) {
      throw new UsageError(`image option '${name}=${value}' is not supported`, false);
    }
  }
  return {
    path,
    format,
    readOnly: flags.get("read-only") ?? false,
    forceShare: flags.get("force-share") ?? false,
  };
}

function onOff(name: string, value: string): boolean {
  if (value === "on") return true;
  if (value === "off") return false;
  throw new UsageError(`Parameter '${name}' expects 'on' or 'off'`, false);
}
