import { memoryStorage } from "../../src/storage/memory-storage.js";
import { type RecordingStorage, recordingStorage } from "../../src/storage/recording-storage.js";
import { type CrashKind, crashedFile } from "./crash-images.js";
import { JitteryStorage } from "./jittery-storage.js";
import type { Random } from "./random.js";

/** An image and its external data file. */
export interface ImageFiles {
  readonly image: Uint8Array;
  readonly data: Uint8Array;
}

/** An image and its external data file whose changes are recorded by one clock: they lose power together. */
export class RecordedFiles {
  readonly clock = { now: 0 };
  readonly image: RecordingStorage;
  readonly data: RecordingStorage;
  readonly #initial: ImageFiles;

  /** `jitter`: both files answer late and out of order. */
  constructor(initial: ImageFiles, jitter?: Random) {
    this.#initial = initial;
    this.image = this.#recorded(initial.image, jitter);
    this.data = this.#recorded(initial.data, jitter);
  }

  #recorded(bytes: Uint8Array, jitter: Random | undefined): RecordingStorage {
    const memory = memoryStorage(bytes);
    return recordingStorage(jitter === undefined ? memory : new JitteryStorage(memory, jitter), memory, this.clock);
  }

  get recorders(): readonly [image: RecordingStorage, data: RecordingStorage] {
    return [this.image, this.data];
  }

  /** The moments around all flushes, as of each recorder. */
  flushMoments(): number[] {
    return this.recorders.flatMap((recorder) => recorder.flushMoments());
  }

  /** Both files after a crash at `moment`. */
  crashed(moment: number, kind: CrashKind, random: Random): ImageFiles {
    const left = ({ changes, flushes }: RecordingStorage, initial: Uint8Array): Uint8Array =>
      crashedFile({ initial, changes, flushes }, moment, kind, random);
    return { image: left(this.image, this.#initial.image), data: left(this.data, this.#initial.data) };
  }
}
