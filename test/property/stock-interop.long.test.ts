import { describeStockInterop } from "../support/stock-interop.js";

describeStockInterop(() => true, 5);
