import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import type { DirtyBits } from "../../formats/qcow2/bitmaps/dirty-bits.js";
import { type BitmapAction, changeBitmap, readBitmap } from "../../jobs/bitmap.js";
import { describeImage } from "../../jobs/info.js";
import { commandArguments } from "../command-arguments.js";
import { FORMAT_OPTION, givenSecrets, HELP_OPTION, IMAGE_OPTS_OPTION, OBJECT_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { type ImageSource, imageOf, type NamedImage, namedImage, withSource } from "../named-image.js";
import { guessedRawText } from "../open.js";
import { isGiven, lastValue, type OptionSpec, type ParsedArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

const ACTIONS: readonly OptionSpec[] = [
  { name: "add", long: "add", about: "make it; it records writes from now on" },
  { name: "remove", long: "remove", about: "take it away; all that can be done with an inconsistent one" },
  { name: "clear", long: "clear", about: "nothing is dirty any more" },
  { name: "enable", long: "enable", about: "record writes from now on" },
  { name: "disable", long: "disable", about: "record no more writes" },
  { name: "merge", long: "merge", value: "SOURCE", about: "what is dirty in bitmap SOURCE is dirty in this one, too" },
];

export const BITMAP_MANUAL: CommandManual = {
  name: "bitmap",
  synopsis: [
    "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)... [-g SIZE] [-b FILE [-F FORMAT]] [-f FORMAT] FILE BITMAP",
  ],
  about: ["Changes a dirty bitmap that is stored in an image. Actions are done in the order given."],
  options: [
    ...ACTIONS,
    {
      name: "granularity",
      short: "g",
      long: "granularity",
      value: "SIZE",
      about: "with --add: bytes that one bit stands for, 512 to 2G; default: the cluster size, 4k to 64k",
    },
    {
      name: "source-file",
      short: "b",
      long: "source-file",
      value: "FILE",
      about: "with --merge: the image that SOURCE is in",
    },
    { name: "source-format", short: "F", long: "source-format", value: "FORMAT", about: "its format" },
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

export async function bitmapCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, BITMAP_MANUAL, context);
  if (parsed === undefined) return 0;
  const granularity = granularityOf(parsed);
  const given = parsed.options.filter((option) => ACTIONS.some((action) => action.name === option.name));
  checkCombination(parsed, given.length);
  const [file, name, ...more] = parsed.positionals;
  if (file === undefined || name === undefined || more.length > 0) {
    throw new UsageError("Expecting filename and bitmap name", false);
  }
  const image = namedImage({ ...parsed, positionals: [file] }, await givenSecrets(parsed));
  const sourceFile = lastValue(parsed, "source-file");
  const mergeImage =
    sourceFile === undefined
      ? undefined
      : imageOf(sourceFile, {
          isDescribed: false,
          format: lastValue(parsed, "source-format"),
          forceShare: false,
          secretOf: image.secretOf,
        });
  const mergeSource = mergeImage === undefined ? undefined : new MergeSource(mergeImage, name, context);
  const actions = given.map((option) => actionOf(option, granularity, mergeSource));
  await withSource(image, "write", context, async ({ source, format, passphrase }) => {
    try {
      await changeBitmap(source, {
        format,
        name,
        actions,
        passphrase,
        beforeActions: mergeSource && (() => mergeSource.look()),
      });
    } catch (error) {
      if (error !== undefined && error === mergeSource?.failure) throw error;
      const isGuess = format === "probe" && error instanceof ZcowError && error.data.value === "raw";
      if (isGuess) context.output.err(guessedRawText(image.name));
      throw inStockWords(error, given[0]?.name ?? "", name, image.name);
    }
  });
  return 0;
}

/** What went wrong with an action says so itself, unless the image can have no bitmaps; the rest is about opening. */
function inStockWords(error: unknown, action: string, bitmap: string, image: string): unknown {
  if (!(error instanceof ZcowError) || error.message.startsWith("Operation ")) return error;
  if (error.code !== "NOT_SUPPORTED") return withSubject(`Could not open '${image}'`, error);
  const reason = action === "add" ? error.stockText : `Dirty bitmap '${bitmap}' not found`;
  const { data } = error;
  const inWords = new ZcowError(error.code, error.message, {
    data,
    cause: error,
    ...(reason === undefined ? {} : { stockText: reason }),
  });
  return withSubject(`Operation ${action} on bitmap ${bitmap} failed`, inWords);
}

function granularityOf(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "granularity");
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size !== undefined) return size;
  throw new UsageError(
    "Invalid granularity specified. You may use k, M, G, T, P or E suffixes for\n" +
      "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
    false,
  );
}

function checkCombination(parsed: ParsedArguments, actions: number): void {
  if (actions === 0) {
    throw new UsageError("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge", false);
  }
  if (isGiven(parsed, "granularity") && !isGiven(parsed, "add")) {
    throw new UsageError("granularity only supported with --add", false);
  }
  if (isGiven(parsed, "source-format") && !isGiven(parsed, "source-file")) {
    throw new UsageError("-F only supported with -b", false);
  }
  if (isGiven(parsed, "source-file") && !isGiven(parsed, "merge")) {
    throw new UsageError("Merge bitmap source file only supported with --merge", false);
  }
}

function actionOf(
  { name, value }: { readonly name: string; readonly value: string },
  granularity: number | undefined,
  mergeSource: MergeSource | undefined,
): BitmapAction {
  if (name === "add") return { do: "add", granularity };
  if (name !== "merge") return { do: name as "remove" | "clear" | "enable" | "disable" };
  return { do: "merge", from: value, source: mergeSource && (() => mergeSource.read(value)) };
}

/** Another image, whose bitmaps are merged: looked at when the first one is wanted, as by the stock tool. */
class MergeSource {
  readonly #image: NamedImage;
  readonly #target: string;
  readonly #context: CommandContext;
  /** Why a bitmap could not be had, in words that say so. */
  failure: unknown;

  constructor(image: NamedImage, target: string, context: CommandContext) {
    this.#image = image;
    this.#target = target;
    this.#context = context;
  }

  /** Fails when it cannot be opened. */
  async look(): Promise<void> {
    await this.#open(({ source, format }) => describeImage(source, { format }));
  }

  read(bitmap: string): Promise<DirtyBits> {
    return this.#open(({ source, format }) => readBitmap(source, { format, name: bitmap }));
  }

  async #open<T>(work: (found: ImageSource) => Promise<T>): Promise<T> {
    try {
      return await withSource(this.#image, "read", this.#context, (found) =>
        work(found).catch((error: unknown) => {
          throw this.#explained(error);
        }),
      );
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }

  #explained(error: unknown): unknown {
    const found = error instanceof ZcowError && error.code.startsWith("BITMAP");
    const subject = found ? `Operation merge on bitmap ${this.#target} failed` : `Could not open '${this.#image.name}'`;
    return withSubject(subject, error);
  }
}
