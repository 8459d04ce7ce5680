import { isZcowError, ZcowError } from "../../base/errors.js";
import { decodeFileName, encodeFileName } from "../../formats/qcow2/file-name.js";
import { applySnapshot, createSnapshot, deleteSnapshot, listSnapshots } from "../../jobs/snapshot.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { errnoNumber, errnoText, withSubject } from "../failure.js";
import { describeToChange } from "../image-to-change.js";
import type { CommandManual } from "../manual.js";
import { type ImageSource, type NamedImage, namedImage, refuseForcedChange, withSource } from "../named-image.js";
import { type OptionSpec, saying } from "../options.js";
import { snapshotListText } from "../snapshot-list.js";
import { UsageError } from "../usage-error.js";

const ACTIONS: readonly OptionSpec[] = [
  { name: "create", short: "c", value: "NAME", about: "create: keep the disk as it is now" },
  {
    name: "apply",
    short: "a",
    value: "SNAPSHOT",
    about: "apply: make the disk what it was (an id, or else a name)",
  },
  { name: "delete", short: "d", value: "NAME", about: "delete" },
];

export const SNAPSHOT_MANUAL: CommandManual = {
  name: "snapshot",
  synopsis: ["[-l | -a SNAPSHOT | -c NAME | -d NAME] [-q] [-U] [--image-opts] FILE"],
  about: ["Lists and changes the internal snapshots of an image that nobody uses."],
  options: [
    { name: "list", short: "l", about: "list the snapshots (default)" },
    ...ACTIONS,
    QUIET_OPTION,
    saying(FORCE_SHARE_OPTION, "ignore the locks of other programs; for listing only"),
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

/** What the stock tool keeps of a name, in bytes. */
const NAME_BYTES = 255;

export async function snapshotCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, SNAPSHOT_MANUAL, context);
  if (parsed === undefined) return 0;
  const asked = parsed.options.filter(({ name }) => name === "list" || ACTIONS.some((action) => action.name === name));
  if (asked.length > 1) throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'");
  const image = namedImage(parsed, await givenSecrets(parsed));
  // The stock tool opens the image for nothing when it is not told what to do.
  const action = asked[0] ?? { name: context.standIn ? "nothing" : "list", value: "" };
  if (action.name === "list") {
    await withSource(image, "inspect", context, (found) => list(found, image, context));
    return 0;
  }
  await withSource(image, "write", context, async (found) => {
    refuseForcedChange(image);
    await describeToChange(found, image, context);
    if (action.name !== "nothing") await change(action.name, action.value, found, image);
  });
  return 0;
}

async function list({ source, format }: ImageSource, image: NamedImage, context: CommandContext): Promise<void> {
  const { forceShare } = image;
  const snapshots = await listSnapshots(source, { format, forceShare }).catch((error: unknown) => {
    throw withSubject(`Could not open '${image.name}'`, error);
  });
  context.output.out(snapshotListText(snapshots));
}

async function change(action: string, name: string, { source, format }: ImageSource, image: NamedImage): Promise<void> {
  try {
    if (action === "create") await createSnapshot(source, { format, name: cut(name) });
    else if (action === "apply") await applySnapshot(source, { format, snapshot: name });
    else await deleteSnapshot(source, { format, snapshot: name });
  } catch (error) {
    throw isZcowError(error) ? inStockWords(error, action, name, image) : error;
  }
}

/** Longer names are cut, as by the stock tool. */
function cut(name: string): string {
  const bytes = encodeFileName(name);
  return bytes.length <= NAME_BYTES ? name : decodeFileName(bytes.subarray(0, NAME_BYTES));
}

function inStockWords(error: ZcowError, action: string, name: string, image: NamedImage): unknown {
  if (error.code.startsWith("QCOW2_SNAPSHOT_TABLE") || error.category === "storage") {
    return withSubject(`Could not open '${image.name}'`, error);
  }
  return new ZcowError(error.code, `Could not ${action} snapshot '${name}': ${error.message}`, {
    data: error.data,
    cause: error,
    stockText: stockText(error, action, name),
  });
}

function stockText(error: ZcowError, action: string, name: string): string {
  const subject = `Could not ${action} snapshot '${name}': `;
  const unsupported = error.code === "NOT_SUPPORTED";
  if (action === "create") return `${subject}-${errnoNumber(error)} (${errnoText(error)})`;
  if (action === "delete") return subject + (unsupported ? "snapshot not found" : (error.stockText ?? error.message));
  if (unsupported || error.code === "BITMAPS_IN_THE_WAY") {
    return subject + (error.stockText ?? `Failed to load snapshot: ${errnoText(error)}`);
  }
  const detail = error.code === "QCOW2_SNAPSHOT_L1" ? `${error.stockText}\nqemu-img: ` : "";
  return `${detail}${subject}Failed to load snapshot: ${errnoText(error)}`;
}
