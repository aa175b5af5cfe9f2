"use strict";
/* Everything that comes from the model goes into the page as text (textContent), never as markup. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const WORDS = {
    en: {
      theme: { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" }, other: "中文",
      title: "What {model} was thinking",
      kinds: { decoder: "decoder", recurrent: "recurrent model", encoder: "encoder", classifier: "text classifier", tagger: "token tagger" },
      facts: "{kind}, {n} tokens", answer: "{bits} bits for the answer",
      tokens: "Tokens",
      aboutTokens: "Click a token, or use the arrow keys. The stronger the colour, the less the model expected the token; the answer is underlined.",
      aboutTokensPlain: "Click a token, or use the arrow keys.",
      expected: "expected", unexpected: "a surprise (10 bits or more)",
      token: "Token", number: "Id", probability: "Probability", rank: "Rank", surprise: "Surprise", entropy: "Entropy", bits: "{n} bits",
      first: "The first token is given; nothing was expected here.",
      here: "What could have stood here", next: "What would come next",
      attention: "Attention",
      aboutAttention: "Where each token (row) looked (column). Darker is more. Click a row or use the arrow keys to choose a token.",
      layer: "Layer", head: "head", mean: "mean of heads", strongest: "Token {token} looks at", meanOnly: "The text is long: only the mean of each layer's heads is kept in this page.",
      noMaps: "The text is too long for attention maps in this page; --json has them.",
      lens: "What each layer would have predicted",
      aboutLens: "The last norm and the output head, applied after every layer (the logit lens): the likeliest next token at each place. The top row is what the model says. Middle layers are not made to be read so.",
      embedding: "embedding", lensCell: "After {layer}, behind {token}", really: "Probability of the token that really came: {p}",
      attribution: "Which input tokens mattered", prediction: "Prediction",
      gradient: "Gradient × (embedding − mean), in nats: to first order, how much the log probability falls when a token's embedding moves to the mean of all embeddings.",
      occlusion: "Occlusion, in nats: how much the log probability falls when a token is replaced by the mean of all embeddings.",
      occlusionVector: "Occlusion: how far the text's vector turns (cosine distance) when a token is replaced by the mean of all embeddings.",
      forIt: "Blue spoke for the prediction, red against it.", vector: "the text's vector",
      map: "Embedding map",
      aboutMap: "The directions of the embeddings on their two main components, which show {share} of the variance: what lies close here may be far apart. Orange: in the text; blue: their neighbours; grey: other tokens. Click an orange point.",
      nearest: "Nearest to {token}", labels: "Labels", aboutLabels: "What the model says of the text.", aboutTokenLabels: "The likeliest label of every token.",
      missing: "Not shown", partial: "A part of a character",
    },
    zh: {
      theme: { auto: "主题：跟随系统", light: "主题：浅色", dark: "主题：深色" }, other: "English",
      title: "{model} 在想什么",
      kinds: { decoder: "解码器", recurrent: "循环模型", encoder: "编码器", classifier: "文本分类器", tagger: "词元标注器" },
      facts: "{kind}，{n} 个词元", answer: "回答共 {bits} 比特",
      tokens: "词元",
      aboutTokens: "点击词元，或用方向键移动。颜色越深，模型越没有预料到它；回答带下划线。",
      aboutTokensPlain: "点击词元，或用方向键移动。",
      expected: "在预料之中", unexpected: "出乎意料（10 比特以上）",
      token: "词元", number: "编号", probability: "概率", rank: "名次", surprise: "意外程度", entropy: "熵", bits: "{n} 比特",
      first: "第一个词元是给定的，这里没有预测。",
      here: "这里还可能出现", next: "接下来可能出现",
      attention: "注意力",
      aboutAttention: "每个词元（行）看向哪里（列），颜色越深越多。点击某一行或用方向键选择词元。",
      layer: "层", head: "头", mean: "各头平均", strongest: "词元 {token} 看向", meanOnly: "文本较长：本页只保留每层各头的平均。",
      noMaps: "文本太长，本页不含注意力图；--json 中有。",
      lens: "每一层会预测什么",
      aboutLens: "在每一层之后接上最后的归一化和输出头（logit lens）：每个位置最可能的下一个词元。最上一行是模型真正说的。中间层并不是为了这样读取而设的。",
      embedding: "嵌入", lensCell: "{layer} 之后，{token} 后面", really: "真正出现的词元的概率：{p}",
      attribution: "哪些输入词元起了作用", prediction: "预测",
      gradient: "梯度 ×（嵌入 − 平均），单位奈特：某词元的嵌入移向全部嵌入的平均时，对数概率的一阶下降量。",
      occlusion: "遮挡，单位奈特：把某词元换成全部嵌入的平均后，对数概率下降多少。",
      occlusionVector: "遮挡：把某词元换成全部嵌入的平均后，文本向量转动多少（余弦距离）。",
      forIt: "蓝色支持该预测，红色反对。", vector: "文本向量",
      map: "嵌入地图",
      aboutMap: "嵌入方向在两个主成分上的投影，只显示 {share} 的方差：图上相近的未必真的相近。橙色：文本中的词元；蓝色：它们的近邻；灰色：其他词元。点击橙色的点。",
      nearest: "与 {token} 最近的词元", labels: "标签", aboutLabels: "模型对文本的判断。", aboutTokenLabels: "每个词元最可能的标签。",
      missing: "未显示", partial: "字符的一部分",
    },
  };
  const T = data.tokens.length;
  const bytes = data.attention ? Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0)) : null;
  const firstAnswer = data.tokens.findIndex((t) => t.answer);
  const state = {
    language: document.documentElement.lang === "zh" ? "zh" : "en", theme: "auto",
    token: firstAnswer >= 0 ? firstAnswer : T - 1, layer: Math.max(0, data.n_layer - 1), head: 0,
    lens: null, target: 0, word: 0,
  };
  const say = (key, values = {}) =>
    WORDS[state.language][key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null) node.setAttribute(name, value);
    }
    for (const child of children) node.append(child);
    return node;
  };
  const seen = (text) => text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "�") || "∅";
  const quoted = (text) => `“${seen(text)}”`;
  const percent = (p) => (p >= 0.1 ? (100 * p).toFixed(0) : p >= 0.0001 ? (100 * p).toPrecision(2) : (100 * p).toExponential(0)) + " %";
  const warm = (alpha) => `rgba(var(--warm), ${alpha.toFixed(3)})`;
  const cool = (alpha) => `rgba(var(--cool), ${alpha.toFixed(3)})`;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function bars(rows, { signed = false } = {}) {
    const most = Math.max(1e-9, ...rows.map((row) => Math.abs(row.value)));
    const negative = signed && rows.some((row) => row.value < 0);
    const box = make("div", { class: "bars" });
    for (const row of rows) {
      const bar = make("div", { class: row.value < 0 ? "bar down" : "bar" });
      const share = (Math.abs(row.value) / (row.most || most)) * (negative ? 50 : 100);
      bar.style.width = `${share}%`;
      bar.style.left = negative ? `${row.value < 0 ? 50 - share : 50}%` : "0";
      const name = make("span", { class: row.this ? "name this" : "name" }, seen(row.name));
      box.append(name, make("div", { class: "track" }, bar), make("span", { class: "value" }, row.shown));
    }
    return box;
  }
  const alternatives = (list, own) =>
    bars(list.map((each) => ({ name: each.text, value: each.p, most: 1, shown: percent(each.p), this: each.id === own })));

  const weight = (layer, head, query, key) => bytes[((layer * data.n_head + head) * T + query) * T + key] / 255;
  function row(layer, head, query) {
    const heads = head < 0 ? [...Array(data.n_head).keys()] : [head];
    return Array.from({ length: T }, (_, key) => heads.reduce((sum, h) => sum + weight(layer, h, query, key), 0) / heads.length);
  }
  function draw(canvas, layer, head) {
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d");
    const image = context.createImageData(T, T);
    const [r, g, b] = color("--cool").split(",").map(Number);
    for (let query = 0; query < T; query++) {
      row(layer, head, query).forEach((value, key) => {
        image.data.set([r, g, b, Math.round(255 * Math.sqrt(value))], 4 * (query * T + key));
      });
    }
    context.putImageData(image, 0, 0);
  }

  function choose(position) {
    state.token = Math.min(T - 1, Math.max(0, position));
    const target = data.attributions.findIndex((each) => each.position === state.token);
    if (target >= 0) state.target = target;
    const word = data.neighbours.findIndex((each) => each.id === data.tokens[state.token].id);
    if (word >= 0) state.word = word;
    state.lens = null;
    showTokens(); showAttention(); showLens(); showAttribution(); showMap();
  }
  function arrows(event, back, forward) {
    const steps = { ArrowLeft: back, ArrowUp: back, ArrowRight: forward, ArrowDown: forward, Home: -T, End: T };
    if (!(event.key in steps)) return false;
    event.preventDefault();
    choose(state.token + steps[event.key]);
    return true;
  }

  const sections = {};
  function section(name, show) {
    const node = make("section", { id: name, "aria-labelledby": `${name}-heading` });
    sections[name] = node;
    document.getElementById("main").append(node);
    return (...children) => node.replaceChildren(make("h2", { id: `${name}-heading` }, show()), ...children);
  }
  const about = (...parts) => make("p", { class: "about" }, ...parts);

  const putTokens = section("tokens", () => say("tokens"));
  function showTokens() {
    const focused = document.activeElement && document.activeElement.closest("#tokens .strip");
    const scored = data.tokens.some((t) => t.p !== null);
    const strip = make("div", { class: "strip", role: "toolbar", "aria-label": say("tokens"),
      onkeydown: (event) => arrows(event, -1, 1) });
    data.tokens.forEach((token, position) => {
      const kinds = `token${token.answer ? " answer" : ""}${token.control ? " control" : ""}`;
      const node = make("button", { type: "button", class: kinds, tabindex: position === state.token ? 0 : -1,
        "aria-pressed": position === state.token, title: token.p === null ? null : percent(token.p), onclick: () => choose(position) },
        seen(token.text));
      if (token.p !== null) node.style.backgroundColor = warm(0.8 * Math.min(1, -Math.log2(Math.max(token.p, 1e-30)) / 10));
      strip.append(node);
      if (token.text.includes("\n")) strip.append(make("span", { class: "break" }));
    });
    const token = data.tokens[state.token];
    const facts = make("dl", {});
    const fact = (name, value) => facts.append(make("dt", {}, say(name)), make("dd", {}, value));
    fact("token", `${quoted(token.text)}  (${state.token})`);
    fact("number", String(token.id));
    if (token.p !== null) {
      fact("probability", percent(token.p));
      fact("rank", String(token.rank));
      fact("surprise", say("bits", { n: (-token.logprob / Math.LN2).toFixed(2) }));
      fact("entropy", say("bits", { n: token.entropy.toFixed(2) }));
    }
    const columns = make("div", { class: "columns", "aria-live": "polite" }, make("div", { class: "fixed" }, facts));
    if (token.p !== null) columns.append(make("div", {}, make("strong", {}, say("here")), alternatives(token.top, token.id)));
    else if (scored) columns.append(make("p", {}, say("first")));
    if (state.token === T - 1 && data.next.length)
      columns.append(make("div", {}, make("strong", {}, say("next")), alternatives(data.next, null)));
    const legend = scored ? [about(say("aboutTokens"), " ", say("expected"), " ", make("span", { class: "legend" }), " ", say("unexpected"))]
      : [about(say("aboutTokensPlain"))];
    putTokens(...legend, strip, make("hr", {}), columns);
    if (focused) sections.tokens.querySelector(".strip [tabindex='0']").focus();
  }

  const putLabels = data.labels.length || data.token_labels.length ? section("labels", () => say("labels")) : null;
  function showLabels() {
    if (!putLabels) return;
    if (data.labels.length)
      putLabels(about(say("aboutLabels")), bars(data.labels.map((each) => ({ name: each.label, value: each.p, most: 1, shown: percent(each.p) }))));
    else
      putLabels(about(say("aboutTokenLabels")), bars(data.token_labels.map((each, position) =>
        ({ name: `${seen(data.tokens[position].text)}  ${each.label}`, value: each.p, most: 1, shown: percent(each.p) }))));
  }

  const putAttention = data.n_layer && data.kind !== "recurrent" ? section("attention", () => say("attention")) : null;
  function showAttention() {
    if (!putAttention) return;
    if (!bytes) { putAttention(about(say("noMaps"))); return; }
    const focus = document.activeElement && sections.attention.contains(document.activeElement) ? document.activeElement.id : "";
    const slider = make("input", { type: "range", id: "layer", min: 1, max: data.n_layer, value: state.layer + 1,
      oninput: (event) => { state.layer = Number(event.target.value) - 1; showAttention(); } });
    const heads = make("div", { class: "heads" });
    const choices = data.n_head > 1 ? [-1, ...Array(data.n_head).keys()] : [0];
    for (const head of choices) {
      const canvas = make("canvas", { "aria-hidden": "true" });
      draw(canvas, state.layer, head);
      heads.append(make("button", { type: "button", id: `head${head}`, "aria-pressed": head === state.head,
        onclick: () => { state.head = head; showAttention(); } }, canvas,
        head < 0 || data.mean_only ? say("mean") : `${say("head")} ${head + 1}`));
    }
    const map = make("canvas", { id: "attention-map", tabindex: 0, role: "img",
      "aria-label": `${say("layer")} ${state.layer + 1}, ${state.head < 0 ? say("mean") : `${say("head")} ${state.head + 1}`}`,
      onkeydown: (event) => arrows(event, -1, 1),
      onclick: (event) => choose(Math.floor((event.offsetY / event.target.clientHeight) * T)) });
    draw(map, state.layer, state.head);
    const context = map.getContext("2d");
    context.fillStyle = `rgba(${color("--warm")}, 0.25)`;
    context.fillRect(0, state.token, T, 1);
    const weights = row(state.layer, state.head, state.token);
    const strip = make("div", { class: "strip" });
    data.tokens.forEach((token, position) => {
      const node = make("span", { class: "token", title: percent(weights[position]) }, seen(token.text));
      node.style.backgroundColor = cool(Math.sqrt(weights[position]) * 0.8);
      if (position === state.token) node.style.outline = `2px solid ${color("--accent")}`;
      strip.append(node);
    });
    const best = weights.map((value, position) => ({ value, position })).sort((a, b) => b.value - a.value).slice(0, 6);
    const list = bars(best.map((each) => ({ name: `${each.position} ${seen(data.tokens[each.position].text)}`, value: each.value, most: 1, shown: percent(each.value) })));
    putAttention(about(say("aboutAttention"), ...(data.mean_only ? [" ", say("meanOnly")] : [])),
      make("label", { for: "layer" }, `${say("layer")} ${state.layer + 1} / ${data.n_layer} `), slider, heads,
      make("div", { class: "columns" }, make("div", { class: "fixed" }, map),
        make("div", { "aria-live": "polite" }, strip, make("p", {}, make("strong", {}, say("strongest", { token: quoted(data.tokens[state.token].text) }))), list)));
    if (focus) document.getElementById(focus)?.focus();
  }

  const putLens = data.lens.length ? section("lens", () => say("lens")) : null;
  const COLUMNS = 48; // of the lens table: what a screen can scroll through
  function showLens() {
    if (!putLens) return;
    const active = document.activeElement && document.activeElement.closest("#lens td");
    const scrolled = sections.lens.querySelector(".scroll");
    const [left, top] = scrolled ? [scrolled.scrollLeft, scrolled.scrollTop] : [null, null];
    const top_layer = data.lens.length - 1;
    const cell = state.lens ?? { layer: top_layer, position: Math.max(0, state.token - 1) };
    const first = T <= COLUMNS ? 0 : Math.max(0, Math.min(T - COLUMNS, cell.position - COLUMNS / 2));
    const positions = Array.from({ length: Math.min(T, COLUMNS) }, (_, i) => first + i);
    const layerName = (layer) => (layer === 0 ? say("embedding") : `${say("layer")} ${layer}`);
    const table = make("table", { id: "lens-table", role: "grid", "aria-label": say("lens"), onkeydown: (event) => {
      const [down, right] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
      if (!down && !right) return;
      event.preventDefault();
      state.lens = { layer: Math.min(top_layer, Math.max(0, cell.layer + down)), position: Math.min(T - 1, Math.max(0, cell.position + right)) };
      showLens();
    } });
    const heading = make("tr", {}, make("th", { scope: "col" }, ""));
    for (const position of positions)
      heading.append(make("th", { scope: "col", class: position === cell.position ? "chosen" : "" }, seen(data.tokens[position].text)));
    const body = make("tbody", {});
    for (let layer = top_layer; layer >= 0; layer--) {
      const line = make("tr", {}, make("th", { scope: "row" }, layerName(layer)));
      for (const position of positions) {
        const best = data.lens[layer][position].top[0];
        const chosen = layer === cell.layer && position === cell.position;
        const node = make("td", { class: chosen ? "chosen" : "", tabindex: chosen ? 0 : -1, title: percent(best.p),
          onclick: () => { state.lens = { layer, position }; showLens(); } }, seen(best.text));
        node.style.backgroundImage = `linear-gradient(${cool(best.p * 0.6)}, ${cool(best.p * 0.6)})`;
        line.append(node);
      }
      body.append(line);
    }
    table.append(make("thead", {}, heading), body);
    const found = data.lens[cell.layer][cell.position];
    const detail = make("div", { "aria-live": "polite" },
      make("p", {}, make("strong", {}, say("lensCell", { layer: layerName(cell.layer), token: quoted(data.tokens[cell.position].text) }))),
      alternatives(found.top, cell.position + 1 < T ? data.tokens[cell.position + 1].id : null));
    if (found.next !== null) detail.append(make("p", { class: "about" }, say("really", { p: percent(found.next) })));
    const scroll = make("div", { class: "scroll" }, table);
    putLens(about(say("aboutLens")), scroll, detail);
    if (left !== null) { scroll.scrollLeft = left; scroll.scrollTop = top; }
    const chosen = scroll.querySelector("td.chosen");
    if (chosen && active) chosen.focus({ preventScroll: false });
    else if (chosen && !state.lens) scroll.scrollLeft = Math.max(0, chosen.offsetLeft - scroll.clientWidth / 2);
  }

  const BARS = 16; // the strongest
  const putAttribution = data.attributions.length ? section("attribution", () => say("attribution")) : null;
  function showAttribution() {
    if (!putAttribution) return;
    const focused = document.activeElement && document.activeElement.id === "target";
    const each = data.attributions[state.target];
    const vector = data.kind === "encoder";
    const select = make("select", { id: "target", onchange: (event) => {
      state.target = Number(event.target.value);
      const position = data.attributions[state.target].position;
      if (position < T) choose(position); else showAttribution();
    } });
    data.attributions.forEach((target, index) => {
      const option = make("option", { value: index }, vector ? say("vector") : `${target.position}: ${seen(target.text)}`);
      option.selected = index === state.target;
      select.append(option);
    });
    const method = vector ? "occlusionVector" : each.method;
    const most = Math.max(1e-9, ...each.scores.map(Math.abs));
    const strip = make("div", { class: "strip" });
    each.scores.forEach((score, position) => {
      const node = make("span", { class: "token", title: score.toFixed(3) }, seen(data.tokens[position].text));
      node.style.backgroundColor = `rgba(var(${score < 0 ? "--bad" : "--cool"}), ${(0.75 * Math.abs(score) / most).toFixed(3)})`;
      strip.append(node);
      if (data.tokens[position].text.includes("\n")) strip.append(make("span", { class: "break" }));
    });
    const rows = each.scores.map((value, position) => ({ value, position }))
      .sort((one, other) => Math.abs(other.value) - Math.abs(one.value)).slice(0, BARS)
      .map(({ value, position }) => ({ name: `${position} ${seen(data.tokens[position].text)}`, value, shown: value.toFixed(3) }));
    putAttribution(about(say(method), ...(vector ? [] : [" ", say("forIt")])), make("label", { for: "target" }, `${say("prediction")} `), select,
      strip, bars(rows, { signed: true }));
    if (focused) document.getElementById("target").focus();
  }

  const putMap = data.map ? section("embeddings", () => say("map")) : null;
  const SVG = "http://www.w3.org/2000/svg";
  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    for (const child of children) node.append(child);
    return node;
  };
  function showMap() {
    if (!putMap) return;
    const points = data.map.points, W = 1000, H = 620, edge = 50;
    const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
    const scale = (value, list, size) => {
      const low = Math.min(...list), high = Math.max(...list);
      return edge + ((value - low) / (high - low || 1)) * (size - 2 * edge);
    };
    const focused = document.activeElement && document.activeElement.closest("#map circle") ? document.activeElement.getAttribute("data-word") : null;
    const picture = svg("svg", { id: "map", viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": say("map") });
    const current = data.neighbours[state.word];
    const close = new Set(current.nearest.map((n) => n.id));
    for (const kind of ["other", "near", "seen"]) {
      for (const point of points.filter((p) => p.kind === kind)) {
        const x = scale(point.x, xs, W), y = H - scale(point.y, ys, H);
        const word = data.neighbours.findIndex((n) => n.id === point.id);
        const circle = svg("circle", { cx: x, cy: y, r: kind === "seen" ? 8 : kind === "near" ? 5 : 3, class: kind }, svg("title", {}, seen(point.text)));
        if (kind === "seen") {
          circle.setAttribute("tabindex", "0"); circle.setAttribute("role", "button"); circle.setAttribute("data-word", String(word));
          circle.setAttribute("aria-label", seen(point.text));
          const pick = () => { state.word = word; showMap(); };
          circle.addEventListener("click", pick);
          circle.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } });
        }
        if (point.id === current.id || close.has(point.id)) circle.classList.add("chosen");
        picture.append(circle);
        if (kind === "seen" || close.has(point.id))
          picture.append(svg("text", { x: x + 11, y: y + 6, class: kind === "seen" ? "seen-text" : "near-text" }, seen(point.text)));
      }
    }
    const nearest = bars(current.nearest.map((n) => ({ name: n.text, value: n.cosine, most: 1, shown: n.cosine.toFixed(3) })));
    putMap(about(say("aboutMap", { share: percent(data.map.explained[0] + data.map.explained[1]) })),
      make("div", { class: "columns" }, make("div", { class: "wide" }, picture),
        make("div", { "aria-live": "polite" }, make("strong", {}, say("nearest", { token: quoted(current.text) })), nearest)));
    if (focused !== null) sections.embeddings.querySelector(`circle[data-word="${Number(focused)}"]`)?.focus();
  }

  const putNotes = data.notes.en.length ? section("notes", () => say("missing")) : null;
  function showNotes() {
    if (!putNotes) return;
    putNotes(make("ul", { class: "notes" }, ...data.notes[state.language].map((note) => make("li", {}, note))));
  }

  function showAll() {
    document.documentElement.lang = state.language === "zh" ? "zh" : "en";
    document.title = say("title", { model: data.model });
    document.getElementById("title").textContent = document.title;
    const facts = [say("facts", { kind: WORDS[state.language].kinds[data.kind], n: T })];
    if (data.answer_bits !== null) facts.push(say("answer", { bits: data.answer_bits.toFixed(1) }));
    document.getElementById("facts").textContent = facts.join(" · ");
    document.getElementById("theme").textContent = WORDS[state.language].theme[state.theme];
    document.getElementById("language").textContent = say("other");
    showTokens(); showLabels(); showAttention(); showLens(); showAttribution(); showMap(); showNotes();
  }
  document.getElementById("language").addEventListener("click", () => {
    state.language = state.language === "en" ? "zh" : "en";
    showAll();
  });
  document.getElementById("theme").addEventListener("click", () => {
    state.theme = { auto: "light", light: "dark", dark: "auto" }[state.theme];
    if (state.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = state.theme;
    showAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showAll);
  choose(state.token);
  showAll();
})();
