// The tools of the workspace, in the order of the rail: name, title, key, class.

import { LookTool } from "./look.js";
import { MeasureTool } from "./measure.js";
import { RefocusTool } from "./refocus.js";
import { RetouchTool } from "./retouch.js";
import { TakeTool } from "./take.js";
import { ThreeDTool } from "./three_d.js";

export const TOOLS = [
  ["look", "Look", "V", LookTool],
  ["measure", "Measure", "M", MeasureTool],
  ["refocus", "Refocus", "R", RefocusTool],
  ["three_d", "3-D", "D", ThreeDTool],
  ["retouch", "Retouch", "B", RetouchTool],
  ["take", "Take away", "E", TakeTool],
];
