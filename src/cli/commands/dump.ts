import { formatSize } from "../../base/size-text.js";
import { type DumpResult, dumpImage, restoreDump } from "../../jobs/dump/dump.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import { openFileStorage } from "../../storage/file-storage.js";
import { removeFile } from "../../storage/remove-file.js";
import type { Storage } from "../../storage/storage.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { printError, withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { type ImageSource, imageNamed, type NamedImage, withSource } from "../named-image.js";
import { isGiven, lastValue, type ParsedArguments, saying } from "../options.js";
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
    saying(IMAGE_OPTS_OPTION, "IMAGE is a list of options: driver=qcow2,file.filename=PATH"),
    OBJECT_OPTION,
    QUIET_OPTION,
    HELP_OPTION,
  ],
  notes: [
    "A dump has the names that the image holds, of its backing and data files, snapshots and bitmaps. Where a damaged reference leads from one table to data in place of another table, those data are in the dump.",
    "Files that exist are not replaced.",
  ],
};

export async function dumpCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, DUMP_MANUAL, context);
  if (parsed === undefined) return 0;
  const [from, to, ...more] = parsed.positionals;
  if (from === undefined || to === undefined || more.length > 0) throw new UsageError("Expecting two file names");
  if (isGiven(parsed, "restore")) {
    await told(`Could not restore '${from}'`, () => restore(from, to));
    return 0;
  }
  const image = imageNamed(from, parsed, await givenSecrets(parsed), lastValue(parsed, "format"));
  const result = await withSource(image, "read", context, (found) =>
    told(`Could not dump '${from}'`, () => dump(found, to, image, isGiven(parsed, "with-keys"))),
  );
  tell(result, parsed, context);
  return 0;
}

async function told<T>(subject: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw withSubject(subject, error);
  }
}

async function restore(from: string, to: string): Promise<void> {
  const source = await openFileStorage(from, {});
  try {
    await make(to, (target) => restoreDump(source, target));
  } finally {
    await source.close();
  }
}

async function dump(
  { source, format }: ImageSource,
  to: string,
  { forceShare }: NamedImage,
  withKeys: boolean,
): Promise<DumpResult> {
  const storage = typeof source === "string" ? await openFileStorage(source, { forceShare }) : borrowedStorage(source);
  try {
    return await make(to, (target) => dumpImage(storage, target, { format, withKeys }));
  } finally {
    await storage.close();
  }
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
