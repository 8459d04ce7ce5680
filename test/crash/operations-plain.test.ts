import { describeOperations } from "../support/operation-crash-suite.js";
import { kindOf } from "../support/operation-images.js";

describeOperations("an image of its own", (feature) => kindOf(feature) === "plain", { cuts: 5, faults: 3 });
