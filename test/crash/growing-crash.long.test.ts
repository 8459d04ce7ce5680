import { describeGrowingCrash } from "../support/growing-crash.js";

describeGrowingCrash(1000, 20);
