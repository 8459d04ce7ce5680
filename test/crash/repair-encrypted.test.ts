import { FEATURE_IMAGES, kindOf } from "../support/operation-images.js";
import { describeRepairs } from "../support/repair-suite.js";

const images = FEATURE_IMAGES.filter((feature) => kindOf(feature) === "encrypted");

describeRepairs("an encrypted image", images, { rounds: 4, cuts: 1, faults: 1 }, 1);
