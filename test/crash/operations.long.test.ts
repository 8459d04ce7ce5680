import { describeOperations } from "../support/operation-crash-suite.js";

describeOperations("any image, at many moments", () => true, { cuts: 200, faults: 80 }, 100);
