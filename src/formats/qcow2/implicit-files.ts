import { type ImplicitFile, type ImplicitFilePolicy, permitImplicitFile } from "../../block/open-policy.js";
import type { Qcow2Header } from "./header.js";

/** The files that an image names in its header, in the order in which they would be opened. */
function implicitFiles(header: Qcow2Header, image: string): ImplicitFile[] {
  const files: ImplicitFile[] = [];
  const { dataFileName, backingFileName, backingFormat } = header;
  if (dataFileName !== undefined) files.push({ role: "data file", name: dataFileName, format: "raw", image });
  if (backingFileName !== undefined) {
    files.push({ role: "backing file", name: backingFileName, format: backingFormat, image });
  }
  return files;
}

/** Fails with `IMPLICIT_FILE_DENIED` for the first file of the header that `policy` does not let be opened. */
export async function permitImplicitFiles(
  header: Qcow2Header,
  image: string,
  policy: ImplicitFilePolicy,
): Promise<void> {
  for (const file of implicitFiles(header, image)) await permitImplicitFile(policy, file);
}
