import { describeOperations } from "../support/operation-crash-suite.js";
import { kindOf } from "../support/operation-images.js";

describeOperations("an encrypted image", (feature) => kindOf(feature) === "encrypted", { cuts: 2, faults: 1 });
