// Highlighted code, in themes whose comments are readable too (AA); loaded when an answer contains code.
import { createCodePlugin } from "@streamdown/code";

export const code = createCodePlugin({ themes: ["github-light-default", "github-dark-default"] });
