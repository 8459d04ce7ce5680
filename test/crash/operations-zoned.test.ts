import { describeOperations } from "../support/operation-crash-suite.js";
import { kindOf } from "../support/operation-images.js";

describeOperations("a zoned image", (feature) => kindOf(feature) === "zoned", { cuts: 4, faults: 2 });
