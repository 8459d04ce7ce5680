import { ZcowError } from "../base/errors.js";
import { listSnapshots } from "../jobs/snapshot.js";
import type { CommandContext } from "./context.js";
import { splitOptionList } from "./image-options.js";
import { type NamedImage, withSource } from "./named-image.js";
import { formatChoice } from "./open.js";
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
export async function snapshotId(
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
