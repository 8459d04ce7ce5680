import { formatSize } from "../../base/size-text.js";
import { type DumpResult, dumpImage, restoreDump } from "../../jobs/dump/dump.js";
import { openFileStorage } from "../../storage/file-storage.js";
import { removeFile } from "../../storage/remove-file.js";
import type { Storage } from "../../storage/storage.js";
import { FORCE_SHARE_OPTION, FORMAT_OPTION, HELP_OPTION, QUIET_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { printError, withSubject } from "../failure.js";
import { helpText } from "../help-text.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { formatChoice } from "../open.js";
import { isGiven, lastValue, type ParsedArguments, parseArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

export const DUMP_MANUAL: CommandManual = {
  name: "dump",
  synopsis: ["[-f FORMAT] [--with-keys] [-U] [-q] IMAGE DUMP", "--restore [-q] DUMP IMAGE"],
  about: [
    "Captures the metadata of a qcow2 image, for a bug report: header, tables, reference counts, snapshots, bitmaps, zones, and nothing that the guest wrote. The image may be damaged.",
    "With --restore, makes an image of a dump: all metadata at their places, and holes where data were.",
  ],
  options: [
    { name: "restore", long: "restore", about: "make an image of a dump" },
    { name: "with-keys", long: "with-keys", about: "the key slots of LUKS as well, which a passphrase opens" },
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    saying(FORCE_SHARE_OPTION, "ignore the locks of other programs on IMAGE"),
    QUIET_OPTION,
    HELP_OPTION,
  ],
  notes: [
    "A dump has the names that the image holds, of its backing and data files, snapshots and bitmaps. Where a damaged reference leads from one table to data in place of another table, those data are in the dump.",
    "Files that exist are not replaced.",
  ],
};

export async function dumpCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, optionsOf(DUMP_MANUAL));
  if (isGiven(parsed, "help")) {
    context.output.out(helpText(DUMP_MANUAL, context));
    return 0;
  }
  const [from, to, ...more] = parsed.positionals;
  if (from === undefined || to === undefined || more.length > 0) throw new UsageError("Expecting two file names");
  const source = await openFileStorage(from, { forceShare: isGiven(parsed, "force-share") });
  try {
    const result = await make(to, (target) => fill(source, target, parsed));
    if (result !== undefined) tell(result, parsed, context);
    return 0;
  } catch (error) {
    throw withSubject(`Could not ${isGiven(parsed, "restore") ? "restore" : "dump"} '${from}'`, error);
  } finally {
    await source.close();
  }
}

async function fill(source: Storage, target: Storage, parsed: ParsedArguments): Promise<DumpResult | undefined> {
  if (!isGiven(parsed, "restore")) {
    const format = formatChoice(lastValue(parsed, "format"));
    return dumpImage(source, target, { format, withKeys: isGiven(parsed, "with-keys") });
  }
  await restoreDump(source, target);
  return undefined;
}

/** A file that was begun does not stay when it cannot be finished. */
async function make<T>(path: string, work: (target: Storage) => Promise<T>): Promise<T> {
  const target = await openFileStorage(path, { writable: true, create: true, exclusive: true });
  try {
    const result = await work(target);
    await target.close();
    return result;
  } catch (error) {
    await target.close();
    await removeFile(path).catch(() => undefined);
    throw error;
  }
}

function tell({ metadataBytes, dumpBytes, notes }: DumpResult, parsed: ParsedArguments, context: CommandContext): void {
  for (const note of notes) printError(context, `warning: not followed: ${note}`);
  if (isGiven(parsed, "quiet")) return;
  context.output.out(`${formatSize(metadataBytes)} of metadata, in a dump of ${formatSize(dumpBytes)}\n`);
}
