import { activeL1, countTree, replaceActiveL1 } from "../snapshots/mapping-rewrite.js";
import type { ImageAtRest } from "./image-at-rest.js";
import { cutFile } from "./resize-disk.js";

/**
 * Takes every mapping out of the disk, so that what is behind it shows everywhere, in one step that a crash cannot split. Clusters
 * that snapshots share stay theirs. The file is cut behind its last used cluster.
 */
export async function emptyDisk(image: ImageAtRest): Promise<void> {
  const l1 = activeL1(image);
  await countTree(image, l1, -1);
  const table = await replaceActiveL1(image, new Uint8Array(l1.length));
  await image.commit(table);
  await cutFile(image);
}
