// Formulas, with their fonts; loaded when an answer contains one.
import "katex/dist/katex.min.css";

import { createMathPlugin } from "@streamdown/math";

export const math = createMathPlugin({ singleDollarTextMath: false });
