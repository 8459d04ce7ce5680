import { ZcowError } from "../base/errors.js";

/** What another file means to the image that names it. */
export type ImplicitFileRole = "backing file" | "data file" | "extent file";

/** A file that an image refers to and that its opener did not name. */
export interface ImplicitFile {
  readonly role: ImplicitFileRole;
  /** The name exactly as the image has it. */
  readonly name: string;
  /** Format that the image records for it, if any. */
  readonly format: string | undefined;
  /** How messages call the image that has the reference. */
  readonly image: string;
}

/**
 * Whether files that an image names may be opened along with it. An image from somebody else can name
 * any file of this host, so the answer is no unless the caller says otherwise: `"allow"` for
 * all, or a function that decides file by file.
 */
export type ImplicitFilePolicy = "deny" | "allow" | ((file: ImplicitFile) => boolean | Promise<boolean>);

/** Resolves when `policy` lets `file` be opened, fails with `IMPLICIT_FILE_DENIED` otherwise. */
export async function permitImplicitFile(policy: ImplicitFilePolicy, file: ImplicitFile): Promise<void> {
  if (policy === "allow") return;
  if (typeof policy === "function" && (await policy(file))) return;
  throw new ZcowError(
    "IMPLICIT_FILE_DENIED",
    `${file.image} names the ${file.role} '${file.name}', which the open policy does not allow`,
    { data: { path: file.image, structure: file.role, value: file.name } },
  );
}
