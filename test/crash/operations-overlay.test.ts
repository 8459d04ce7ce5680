import { describeOperations } from "../support/operation-crash-suite.js";
import { kindOf } from "../support/operation-images.js";

describeOperations("an image of several files", (feature) => kindOf(feature) === "files", { cuts: 4, faults: 2 });
