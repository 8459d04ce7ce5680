import type { Random } from "./random.js";

/** Command lines of qemu-img that a user may type, most of them wrong in one way or several. */

/** Makes the images that the command lines name. */
export const COMMAND_LINE_IMAGES = `
  qemu-img create -q -f qcow2 a.qcow2 4M
  qemu-io -f qcow2 -c 'write -q -P 7 0 64k' -c 'write -q -P 9 1M 300k' -c 'write -q -z 2M 64k' a.qcow2
  qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
  qemu-io -f qcow2 -c 'write -q -P 3 128k 64k' o.qcow2
  qemu-img create -q -f raw r.raw 1M
  qemu-io -f raw -c 'write -q -P 5 4k 64k' r.raw
  qemu-img create -q -f qcow2 -o compat=0.10 v.qcow2 3M
  qemu-img create -q -f qcow2 -o cluster_size=128k m.qcow2 2M
  qemu-img bitmap --add m.qcow2 b0
  qemu-img bitmap --add -g 512 m.qcow2 b1
  qemu-img create -q -f qcow2 s.qcow2 1M
  qemu-img snapshot -c s1 s.qcow2
  qemu-io -f qcow2 -c 'write -q 0 64k' s.qcow2
  qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k e.qcow2 2M`;

const IMAGES = ["a.qcow2", "o.qcow2", "r.raw", "v.qcow2", "m.qcow2", "s.qcow2", "e.qcow2", "none.qcow2"];
const FORMATS = ["qcow2", "raw", "bogus"];
const SIZES = ["1M", "4M", "0", "3k", "1000", "1x", "+1M", "8E", "5M"];
const CACHES = ["none", "writeback", "unsafe", "directsync", "bogus", "writethrough"];
const NUMBERS = ["1", "4", "16", "17", "-1", "x", "2M", "512", "100"];
const RATES = ["0", "x", "999M"];
const FORMS = ["json", "human", "xml"];
const PLACES = ["0", "64k", "1M", "x", "99M"];
const SNAPSHOTS = ["s1", "1", "nope", "snapshot.name=s1", "snapshot.id=1"];
const NEW = ["new.img", "new2.img", "a.qcow2", "nodir/x"];
const OPTIONS = [
  "size=1M",
  "cluster_size=4k",
  "cluster_size=3k",
  "compat=0.10",
  "compat=9",
  "lazy_refcounts=on",
  "nosuch=1",
  "preallocation=metadata",
  "preallocation=bogus",
  "help",
  "?",
  "backing_fmt=qcow2",
  "refcount_bits=16",
  "refcount_bits=3",
  "extended_l2=on",
  "compression_type=zstd",
  "encryption=on",
  "cluster_size=64k,compat=1.1",
  "''",
];

interface CommandShape {
  /** Options and what may follow them. */
  readonly options: Readonly<Record<string, readonly string[] | undefined>>;
  /** What may stand for each argument. */
  readonly names: readonly (readonly string[])[];
}

const IMAGE_OPTIONS = { "-f": FORMATS, "--image-opts": undefined };
const READING = { ...IMAGE_OPTIONS, "-U": undefined };
const numbered = (name: string, values: readonly string[]): string[] => values.map((value) => `${name}=${value}`);

const SHAPES: Readonly<Record<string, CommandShape>> = {
  amend: {
    options: { ...IMAGE_OPTIONS, "-q": undefined, "-o": OPTIONS, "-t": CACHES, "--force": undefined },
    names: [IMAGES],
  },
  bench: {
    options: {
      ...READING,
      "-c": ["1", "10", "0", "x"],
      "-d": NUMBERS,
      "-s": ["512", "4k", "x", "3"],
      "-o": PLACES,
      "-S": ["4k", "x"],
      "-w": undefined,
      "-q": undefined,
      "-n": undefined,
      "--no-drain": undefined,
      "-t": CACHES,
      "-i": ["threads", "bogus"],
      "--pattern": ["1", "256", "x"],
      "--flush-interval": NUMBERS,
    },
    names: [IMAGES],
  },
  bitmap: {
    options: {
      ...IMAGE_OPTIONS,
      "--add": undefined,
      "--remove": undefined,
      "--clear": undefined,
      "--enable": undefined,
      "--disable": undefined,
      "--merge": ["b0", "b1", "zz"],
      "-g": ["512", "64k", "3", "1k", "x"],
      "-b": IMAGES,
      "-F": FORMATS,
    },
    names: [IMAGES, ["b0", "b1", "new"]],
  },
  check: {
    options: { ...READING, "-q": undefined, "--output": FORMS, "-r": ["leaks", "all", "x"], "-T": CACHES },
    names: [IMAGES],
  },
  commit: {
    options: { ...IMAGE_OPTIONS, "-q": undefined, "-t": CACHES, "-b": IMAGES, "-r": RATES, "-d": undefined },
    names: [IMAGES],
  },
  compare: {
    options: { ...READING, "-F": FORMATS, "-T": CACHES, "-s": undefined, "-q": undefined },
    names: [IMAGES, IMAGES],
  },
  convert: {
    options: {
      ...READING,
      "-O": FORMATS,
      "-o": OPTIONS,
      "-c": undefined,
      "-q": undefined,
      "-n": undefined,
      "-l": SNAPSHOTS,
      "-t": CACHES,
      "-T": CACHES,
      "-S": ["4k", "0", "512", "100", "x"],
      "-m": NUMBERS,
      "-W": undefined,
      "-B": IMAGES,
      "-F": FORMATS,
      "-C": undefined,
      "-r": RATES,
      "--target-is-zero": undefined,
      "--salvage": undefined,
      "--bitmaps": undefined,
      "--skip-broken-bitmaps": undefined,
      "--target-image-opts": undefined,
    },
    names: [IMAGES, NEW],
  },
  create: {
    options: { "-f": FORMATS, "-o": OPTIONS, "-b": IMAGES, "-F": FORMATS, "-u": undefined, "-q": undefined },
    names: [NEW, SIZES],
  },
  dd: {
    options: { ...READING, "-O": FORMATS },
    names: [
      numbered("if", IMAGES),
      numbered("of", ["new.img", "nodir/x"]),
      numbered("bs", ["4k", "0", "64k", "1M", "x", "1000"]),
      numbered("count", ["0", "1", "3", "x", "9999"]),
      numbered("skip", ["0", "1", "300", "x"]),
    ],
  },
  info: { options: { ...READING, "--output": FORMS, "--backing-chain": undefined }, names: [IMAGES] },
  map: {
    options: { ...READING, "--output": FORMS, "--start-offset": PLACES, "--max-length": PLACES },
    names: [IMAGES],
  },
  measure: {
    options: { ...READING, "-O": FORMATS, "-o": OPTIONS, "-l": SNAPSHOTS, "--size": SIZES, "--output": FORMS },
    names: [IMAGES],
  },
  rebase: {
    options: {
      ...READING,
      "-F": FORMATS,
      "-b": [...IMAGES, "''"],
      "-u": undefined,
      "-q": undefined,
      "-t": CACHES,
      "-T": CACHES,
    },
    names: [IMAGES],
  },
  resize: {
    options: {
      ...IMAGE_OPTIONS,
      "-q": undefined,
      "--shrink": undefined,
      "--preallocation": ["off", "metadata", "falloc", "full", "x"],
    },
    names: [IMAGES, SIZES],
  },
  snapshot: {
    options: {
      "-l": undefined,
      "-c": ["n1", "s1"],
      "-a": SNAPSHOTS,
      "-d": SNAPSHOTS,
      "-q": undefined,
      "-U": undefined,
      "--image-opts": undefined,
    },
    names: [IMAGES],
  },
};

/** What zcow does otherwise and says so (docs/commands.md, "Differences"), or what stock says of its own insides. */
const DIFFERENT: readonly RegExp[] = [
  // Names of block nodes.
  /^bitmap .*--add.* v\.qcow2/,
  /^bitmap .*--add.* -f raw|^bitmap .*-f raw.* --add/,
  // Told twice that the format was guessed.
  /^snapshot .*-a .*r\.raw/,
];

/** One line, and whether the command changes files. Words in quotes are empty. */
export function randomCommandLine(random: Random): { readonly line: string; readonly changes: boolean } {
  for (;;) {
    const command = random.pick(Object.keys(SHAPES));
    const { options, names } = SHAPES[command] as CommandShape;
    const words: string[] = [command];
    for (const name of random.shuffled(Object.keys(options)).slice(0, random.pick([0, 1, 1, 2, 2, 3, 4]))) {
      const values = options[name];
      words.push(name, ...(values === undefined ? [] : [random.pick(values)]));
    }
    const count = names.length - (random.chance(0.15) ? 1 : 0);
    for (const choices of names.slice(0, count)) words.push(random.pick(choices));
    if (random.chance(0.05)) words.push("extra");
    const line = words.join(" ");
    const changes = !["bench", "check", "compare", "info", "map", "measure"].includes(command);
    if (!DIFFERENT.some((known) => known.test(line))) return { line: `qemu-img ${line}`, changes };
  }
}
