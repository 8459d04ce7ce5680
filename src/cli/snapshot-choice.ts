import { isZcowError, ZcowError } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import { listSnapshots } from "../jobs/snapshot.js";
import type { CacheMode } from "./cache-mode.js";
import type { CommandContext } from "./context.js";
import { withSubject } from "./failure.js";
import { splitOptionList } from "./image-options.js";
import { type NamedImage, withSource } from "./named-image.js";
import { formatChoice, openForCommand } from "./open.js";
import { UsageError } from "./usage-error.js";

/** Which internal snapshot `-l` means: one of that id or else name, or one that has all that is given. */
export interface SnapshotChoice {
  readonly idOrName?: string;
  readonly id?: string;
  readonly name?: string;
}

/** Reads `ID_OR_NAME` or `snapshot.id=ID,snapshot.name=NAME`. */
export function snapshotChoice(text: string | undefined): SnapshotChoice | undefined {
  if (text === undefined) return undefined;
  if (!text.startsWith("snapshot.")) return { idOrName: text };
  const given = new Map(splitOptionList(text));
  for (const name of given.keys()) {
    if (name === "snapshot.id" || name === "snapshot.name") continue;
    throw new UsageError(`Invalid parameter '${name}'\nFailed in parsing snapshot param '${text}'`, false);
  }
  const [id, name] = [given.get("snapshot.id"), given.get("snapshot.name")];
  return { ...(id === undefined ? {} : { id }), ...(name === undefined ? {} : { name }) };
}

/** What the chosen snapshot can be opened by. Fails with `SNAPSHOT_NOT_FOUND`. */
async function snapshotId(
  { idOrName, id, name }: SnapshotChoice,
  format: string,
  image: NamedImage,
  context: CommandContext,
): Promise<string> {
  if (idOrName !== undefined) return idOrName;
  const { name: path, forceShare } = image;
  const snapshots =
    format === "qcow2"
      ? await withSource(image, "inspect", context, ({ source }) =>
          listSnapshots(source, { format: formatChoice(format), forceShare }),
        )
      : [];
  const found = snapshots.find(
    (one) => (id === undefined || one.id === id) && (name === undefined || one.name === name),
  );
  if (found !== undefined) return found.id;
  throw new ZcowError(
    "SNAPSHOT_NOT_FOUND",
    `${path} has no snapshot with id '${id ?? "any"}' and name '${name ?? "any"}'`,
    {
      data: { path, structure: "snapshot table", value: id ?? name ?? "" },
    },
  );
}

/** Opens the image of `choice` for reading, or a snapshot of it. Fails as opening does, in the words of the stock tools. */
export async function openChosen(
  choice: NamedImage & { readonly cache: CacheMode },
  snapshot: SnapshotChoice | undefined,
  context: CommandContext,
): Promise<BlockDevice> {
  try {
    const disk = await openForCommand({ ...choice, readOnly: true }, context);
    if (snapshot === undefined) return disk;
    // What cannot be opened is told about as such, before anything is said of snapshots.
    const { format } = disk;
    await disk.close();
    return await openSnapshot(snapshot, format, choice, context);
  } catch (error) {
    if (isZcowError(error, "SNAPSHOT_NOT_FOUND")) throw error;
    throw withSubject(`Could not open '${choice.name}'`, error);
  }
}

async function openSnapshot(
  snapshot: SnapshotChoice,
  format: string,
  choice: NamedImage & { readonly cache: CacheMode },
  context: CommandContext,
): Promise<BlockDevice> {
  try {
    const id = await snapshotId(snapshot, format, choice, context);
    return await openForCommand({ ...choice, readOnly: true, snapshot: id }, context);
  } catch (error) {
    if (!isZcowError(error, "SNAPSHOT_NOT_FOUND")) throw error;
    const stock =
      format === "qcow2"
        ? "Can't find snapshot"
        : `Block format '${format}' used by device '' does not support temporarily loading internal snapshots`;
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      stockText: `Failed to load snapshot: ${stock}`,
    });
  }
}
