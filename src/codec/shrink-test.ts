/**
 * A cheap test of whether a cluster is worth compressing: some 30 microseconds for 64 KiB, where finding out with deflate costs half a
 * millisecond. Disks hold much that is compressed or encrypted already.
 *
 * It errs towards compressing. What it may miss is small: a frequency of bytes that would gain less than about half a percent,
 * compressible parts shorter than 2 KiB amid random bytes, and repetitions further apart than looked at.
 */

/** Clusters below that are always tried: compressing them is as cheap as testing. */
const LEAST_BYTES = 4096;
/** One sample in each stretch: parts of a cluster, such as blocks of a file system, differ. */
const STRETCH_BYTES = 2048;
const SAMPLE_BYTES = 128;
/** Random samples have 101 different bytes, with a deviation of 4.5; text has about 30. */
const FEWEST_DIFFERENT = 75;
/** Pearson's statistic of 256 values: 255 for random bytes, with a deviation of 23. */
const MOST_SKEW = 400;

/** Where repetitions are looked for byte by byte: longer than the window of deflate, once for each part of the cluster. */
const REPEAT_BYTES = 5120;
const REPEAT_PARTS = 64 * 1024;
/** Of the positions, one in 16 by their content, so that a repeated piece is noticed wherever it begins. */
const CHOSEN_MASK = 0xf0;
/** Repeated pieces of that many chosen positions, some 64 bytes, make it worth trying. Random bytes have none. */
const MOST_REPEATS = 3;
const SECTOR_BYTES = 512;
const SLOTS = 4096;
const HASH_FACTOR = 0x9e37_79b1;
const HASH_SHIFT = 20;

const counts = new Uint32Array(256);
const lastSample = new Uint32Array(256);
let sampleNumber = 0;
const slots = new Int32Array(SLOTS);

/** Whether compressing `contents` can be expected to save anything. */
export function mayShrink(contents: Uint8Array): boolean {
  return contents.length < LEAST_BYTES || hasPattern(contents) || hasRepeats(contents);
}

/** Some sample has few different bytes, or some bytes are more frequent than others. */
function hasPattern(contents: Uint8Array): boolean {
  counts.fill(0);
  let total = 0;
  for (let start = 0; start + SAMPLE_BYTES <= contents.length; start += STRETCH_BYTES) {
    sampleNumber = sampleNumber === 0xffff_ffff ? 1 : sampleNumber + 1;
    let different = 0;
    for (let at = start; at < start + SAMPLE_BYTES; at++) {
      const byte = contents[at] as number;
      counts[byte] = (counts[byte] as number) + 1;
      if (lastSample[byte] !== sampleNumber) {
        lastSample[byte] = sampleNumber;
        different += 1;
      }
    }
    if (different < FEWEST_DIFFERENT) return true;
    total += SAMPLE_BYTES;
  }
  let squares = 0;
  for (let byte = 0; byte < 256; byte++) squares += (counts[byte] as number) ** 2;
  return (squares * 256) / total - total > MOST_SKEW;
}

/** Four bytes that were there before: at the start of a sector anywhere, or at any place within the reach of deflate. */
function hasRepeats(contents: Uint8Array): boolean {
  slots.fill(0);
  let repeats = 0;
  for (let at = 0; at + 4 <= contents.length; at += SECTOR_BYTES) {
    if (seen(wordAt(contents, at)) && ++repeats > MOST_REPEATS) return true;
  }
  for (let part = 0; part < contents.length; part += REPEAT_PARTS) {
    if (repeatsNearby(contents, part, Math.min(contents.length, part + REPEAT_BYTES))) return true;
  }
  return false;
}

function repeatsNearby(contents: Uint8Array, start: number, end: number): boolean {
  slots.fill(0);
  let repeats = 0;
  let word = 0;
  for (let at = start; at < end; at++) {
    word = (word << 8) | (contents[at] as number);
    if ((word & CHOSEN_MASK) === 0 && at >= start + 3 && seen(word) && ++repeats > MOST_REPEATS) return true;
  }
  return false;
}

function wordAt(contents: Uint8Array, at: number): number {
  return (
    ((contents[at] as number) << 24) |
    ((contents[at + 1] as number) << 16) |
    ((contents[at + 2] as number) << 8) |
    (contents[at + 3] as number)
  );
}

/** Whether `word` was the last one in its slot; it is now. */
function seen(word: number): boolean {
  const slot = Math.imul(word, HASH_FACTOR) >>> HASH_SHIFT;
  const before = slots[slot];
  slots[slot] = word;
  return before === word;
}
