import { isZcowError, type ZcowError } from "../../base/errors.js";

/**
 * What a header is read for. `open`: to use the disk, strict. `info`: to show what the image says; a data file is not
 * needed. `check`: to find and repair faults, so those that can be repaired are reported and not thrown.
 */
export type HeaderMode = "open" | "info" | "check";

export interface HeaderUse {
  /** Default `open`. */
  readonly mode?: HeaderMode;
  /** The image will be changed. Default false. */
  readonly writable?: boolean;
  /** The external data file is at hand, whether the header names it or not. Default false. */
  readonly dataFileGiven?: boolean;
  /** Receives the faults that this use tolerates. */
  readonly onFinding?: (finding: ZcowError) => void;
}

/** Decides for one use which faults end it and which are only reported. */
export class Verdict {
  readonly mode: HeaderMode;
  readonly writable: boolean;
  readonly dataFileGiven: boolean;
  #later: ZcowError | undefined;
  readonly #onFinding: (finding: ZcowError) => void;

  constructor(use: HeaderUse) {
    this.mode = use.mode ?? "open";
    this.writable = use.writable ?? false;
    this.dataFileGiven = use.dataFileGiven ?? false;
    this.#onFinding = use.onFinding ?? (() => {});
  }

  report(finding: ZcowError): void {
    this.#onFinding(finding);
  }

  refuseUnless(tolerated: boolean, fault: ZcowError): void {
    if (!tolerated) throw fault;
    this.report(fault);
  }

  /**
   * As `refuseUnless` for a fault that the stock tools do not look for: kept until `settle`, so that an image
   * with several faults is refused with the one that they name.
   */
  refuseLaterUnless(tolerated: boolean, fault: ZcowError): void {
    if (tolerated) this.report(fault);
    else this.#later ??= fault;
  }

  /** Throws the first fault that was put off. */
  settle(): void {
    if (this.#later !== undefined) throw this.#later;
  }

  /** Runs a check whose fault is reported when `tolerated`. */
  attempt(tolerated: boolean, check: () => void): void {
    try {
      check();
    } catch (fault) {
      if (!isZcowError(fault)) throw fault;
      this.refuseUnless(tolerated, fault);
    }
  }
}
