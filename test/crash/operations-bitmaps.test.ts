import { describeOperations } from "../support/operation-crash-suite.js";
import { kindOf } from "../support/operation-images.js";

describeOperations("an image with bitmaps", (feature) => kindOf(feature) === "bitmaps", { cuts: 6, faults: 4 });
