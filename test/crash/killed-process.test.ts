import { killedProcessSuite } from "../support/killed-process-suite.js";

killedProcessSuite({ seeds: 1, moments: 15 });
