import { describeGrowingCrash } from "../support/growing-crash.js";

describeGrowingCrash(31, 1);
