import { isZcowError, type Warning, ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { createImage } from "../../formats/create-image.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { isRemoteName } from "../../storage/open-storage.js";
import { commandArguments } from "../command-arguments.js";
import { FORMAT_OPTION, givenSecrets, HELP_OPTION, OBJECT_OPTION, QUIET_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { asksForOptions, formattingLine, optionHelp } from "../create-options-text.js";
import {
  type Assignment,
  givenAssignments,
  type ParsedCreation,
  parseCreationOptions,
  requireBackable,
  requireFileFormat,
} from "../creation-options.js";
import { errnoText, printError, withSubject } from "../failure.js";
import { fileOfName } from "../file-name.js";
import type { CommandManual } from "../manual.js";
import { allValues, isGiven, lastValue, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

export const CREATE_MANUAL: CommandManual = {
  name: "create",
  synopsis: ["[-f FORMAT] [-b BACKING -F FORMAT [-u]] [-o NAME=VALUE[,...]]... [-q] FILE [SIZE]"],
  about: ["Makes an image. A file of that name is replaced."],
  options: [
    saying(FORMAT_OPTION, "qcow2 or raw (default)"),
    {
      name: "options",
      short: "o",
      value: "NAME=VALUE[,...]",
      about: "options of the format; may be repeated; '-o help' lists them",
    },
    {
      name: "backing",
      short: "b",
      value: "FILE",
      about: "make an overlay on this image; its size is taken over unless SIZE is given",
    },
    { name: "backing-format", short: "F", value: "FORMAT", about: "format of the backing image" },
    { name: "unsafe", short: "u", about: "do not look at the backing image: it need not be there" },
    saying(QUIET_OPTION, "do not show what is made"),
    saying(OBJECT_OPTION, "secret,id=ID,data=TEXT or file=PATH: a passphrase for -o encrypt.key-secret=ID"),
    HELP_OPTION,
  ],
  notes: [
    "SIZE is a number of bytes, with an optional suffix k, M, G, T, P or E; it may also be given as -o size=SIZE.",
  ],
  examples: ["create -f qcow2 -o zone.mode=host-managed -o zone.size=64M disk.qcow2 768M"],
};

/** Largest size the stock tools can name: 2^63 - 1. */
const LARGEST_SIZE = 2 ** 63;

export async function createCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, CREATE_MANUAL, context);
  if (parsed === undefined) return 0;
  const format = lastValue(parsed, "format") ?? "raw";
  const lists = allValues(parsed, "options");
  const given = givenAssignments(lists);
  const [path, sizeText, extra] = parsed.positionals;
  if (asksForOptions(lists)) {
    requireFileFormat(format);
    context.output.out(optionHelp(format, path, context.standIn));
    return 0;
  }
  if (path === undefined) throw new UsageError("Expecting image file name");
  const size = sizeText === undefined ? undefined : imageSize(sizeText);
  if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`);
  const backing = [
    ...allValues(parsed, "backing").map((name): Assignment => ["backing_file", name]),
    ...allValues(parsed, "backing-format").map((name): Assignment => ["backing_fmt", name]),
  ];
  const secretOf = await givenSecrets(parsed);
  try {
    const unsafe = isGiven(parsed, "unsafe");
    await create({ path, format, given, backing, size, unsafe, quiet: isGiven(parsed, "quiet"), secretOf }, context);
    return 0;
  } catch (error) {
    throw withSubject(path, error);
  }
}

function imageSize(text: string): number {
  const size = parseSize(text);
  if (size === undefined) {
    throw new UsageError(
      "Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n" +
        "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
      false,
    );
  }
  // 2^63 - 1 itself has become 2^63 on the way.
  if (size > LARGEST_SIZE || (size === LARGEST_SIZE && !/^\s*\+?9/.test(text))) {
    throw new UsageError("Invalid image size specified. Must be between 0 and 9223372036854775807.", false);
  }
  return size;
}

interface Creation {
  readonly path: string;
  readonly format: string;
  /** Options of `-o`. */
  readonly given: readonly Assignment[];
  /** The backing file and its format, of options of their own. */
  readonly backing: readonly Assignment[];
  /** The size given apart from the options. */
  readonly size: number | undefined;
  /** The backing file is not looked at. */
  readonly unsafe: boolean;
  readonly quiet: boolean;
  readonly secretOf: SecretLookup;
}

async function create(creation: Creation, context: CommandContext): Promise<void> {
  const { path, format, given, backing, quiet, secretOf } = creation;
  requireFileFormat(format);
  const file = fileOfName(path);
  const parsed = parseCreationOptions(format, given, secretOf, backing);
  const sizeOption = given.findLast(([name]) => name === "size")?.[1];
  if (creation.size !== undefined && sizeOption !== undefined) {
    throw refusal(
      "the size is given twice, with -o size= and behind the file name",
      "The image size must be specified only once",
    );
  }
  requireBackable(format, backing);
  const asked = creation.size ?? (sizeOption === undefined ? undefined : parseSize(sizeOption));
  const behind = await sizeBehind(creation, parsed);
  const size = asked ?? behind;
  if (size === undefined) {
    throw refusal("a size is needed, behind the file name or with -o size=", "Image creation needs a size parameter");
  }
  if (!quiet) context.output.out(formattingLine(path, format, [...given, ...backing], size));
  if ("refusal" in parsed) throw parsed.refusal;
  const onWarning = (warning: Warning): void => printError(context, `warning: ${warning.message}`);
  try {
    await createImage(file, {
      ...parsed.options,
      size,
      onWarning,
      unsafeBacking: creation.unsafe,
      implicitFiles: "probe",
    });
  } catch (error) {
    throw describeFileError(error, path);
  }
}

/** Looks at the backing file before anything is said, as the stock tool does; its size, unless it is not to be looked at. */
async function sizeBehind({ path, unsafe }: Creation, parsed: ParsedCreation): Promise<number | undefined> {
  if ("refusal" in parsed || parsed.options.format !== "qcow2") return undefined;
  const { backingFile } = parsed.options;
  if (backingFile === undefined) return undefined;
  if (backingFile === "")
    throw refusal("the name of the backing file is empty", "Expected backing file name, got empty string");
  const { backingFormatMissing, readBackingFacts } = await import("../../formats/backing-facts.js");
  if (unsafe && parsed.options.backingFormat === undefined) throw backingFormatMissing(backingFile);
  if (unsafe) return undefined;
  return (await readBackingFacts(path, parsed.options, { implicitFiles: "probe" }))?.size;
}

function refusal(message: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", message, { data: { option: "size" }, stockText });
}

/** Failures of the file itself have their own wording when the file was to be made. */
function describeFileError(error: unknown, path: string): unknown {
  // The caller says of which file.
  if (isZcowError(error, "LOCKED")) return error;
  if (!isZcowError(error) || error.category !== "storage") return error;
  // An export is not made.
  if (isRemoteName(path) && error.stockText !== undefined) return error;
  return new ZcowError(error.code, error.message, {
    data: error.data,
    cause: error,
    // It may have been the data file.
    stockText: `Could not create '${error.data.path ?? path}': ${errnoText(error)}`,
  });
}
