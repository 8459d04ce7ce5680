import { endedMidwaySuite } from "../support/ended-midway-suite.js";

endedMidwaySuite({ moments: 1, everySignal: false });
