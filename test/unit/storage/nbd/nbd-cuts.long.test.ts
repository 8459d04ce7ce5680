import { describe } from "vitest";
import { nbdCutSuite } from "../../../support/nbd-cut-suite.js";

describe("an export whose server dies with what was not flushed, at every byte", () => {
  nbdCutSuite(1);
});
