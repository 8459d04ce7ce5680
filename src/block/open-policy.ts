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
 *
 * A file whose format the image does not record is refused all the same (`FORMAT_UNKNOWN`): whoever writes to a raw disk
 * could make it look like another format. `"probe"`, as the policy or as the answer of the function, allows it and
 * recognises the format by content.
 */
export type ImplicitFilePolicy =
  | "deny"
  | "allow"
  | "probe"
  | ((file: ImplicitFile) => ImplicitFileAnswer | Promise<ImplicitFileAnswer>);

/** What a policy says about one file. */
export type ImplicitFileAnswer = boolean | "probe";

/** Resolves when `policy` lets `file` be opened, fails with `IMPLICIT_FILE_DENIED` otherwise. True: its format may be guessed. */
export async function permitImplicitFile(policy: ImplicitFilePolicy, file: ImplicitFile): Promise<boolean> {
  if (policy === "allow" || policy === "probe") return policy === "probe";
  const answer = typeof policy === "function" && (await policy(file));
  if (answer !== false) return answer === "probe";
  throw new ZcowError(
    "IMPLICIT_FILE_DENIED",
    `${file.image} names the ${file.role} '${file.name}', which the open policy does not allow`,
    { data: { path: file.image, structure: file.role, value: file.name } },
  );
}
