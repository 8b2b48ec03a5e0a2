// 步进图：选一个词元，一步步走 q·k → ÷√d → 掩码 → softmax → Σ 权重·v。数字全部由 Python 算好送来。
function render({ model, el }) {
  const root = html("div", { class: "hz hz-stepper", role: "group", lang: "zh-CN", "aria-label": "注意力的五步" });
  el.append(root);
  ownKeys(root);
  const font = followFont(root, model);
  const STEPS = ["q·k 点积", "÷ √d", "掩码", "softmax", "Σ 权重·v"];
  const minus = (text) => text.replace("-", "−");
  const show = (x, digits = 2) => (Number.isFinite(x) ? minus(x.toFixed(digits)) : "−∞");
  const tokens = () => model.get("tokens"), D = () => model.get("dim");
  const read = (name, index) => model.get(name).getFloat32(4 * index, true);
  const vector = (name, i) => Array.from({ length: D() }, (_, d) => read(name, i * D() + d));
  const matrix = (name, i) => tokens().map((_, j) => read(name, i * tokens().length + j));

  const choose = html("select", { class: "hz-select", "aria-label": "看哪一个词元" });
  choose.addEventListener("change", () => save(model, { token: Number(choose.value) }));
  const back = html("button", { type: "button", class: "hz-button" }, "← 上一步");
  const next = html("button", { type: "button", class: "hz-button hz-primary" }, "下一步 →");
  const tabs = STEPS.map((text, s) => {
    const button = html("button", { type: "button", class: "hz-tab", "data-step": s }, html("b", {}, s + 1), ` ${text}`);
    button.addEventListener("click", () => save(model, { step: s }));
    return button;
  });
  const go = (change) => save(model, { step: clamp(model.get("step") + change, 0, STEPS.length - 1) });
  back.addEventListener("click", () => go(-1));
  next.addEventListener("click", () => go(1));
  const formula = html("div", { class: "hz-formula" });
  const status = html("div", { class: "hz-status", role: "status", "aria-live": "polite" });
  const picture = html("div", { class: "hz-picture", tabindex: 0, role: "application", "aria-roledescription": "可用方向键操作的图" });
  const table = html("table", { class: "hz-table" });
  const hint = html("div", { class: "hz-hint" });
  for (const [key, text] of [["← →", "上一步、下一步"], ["↑ ↓", "换一个词元"], ["Home End", "第一步、最后一步"]]) hint.append(html("kbd", {}, key), ` ${text}  `);
  root.append(html("div", { class: "hz-row" }, html("label", {}, html("span", {}, "词元"), choose),
      html("span", { class: "hz-tabs", role: "group", "aria-label": "步骤" }, ...tabs), back, next),
    formula, status, html("div", { class: "hz-main" }, picture), hint,
    html("details", {}, html("summary", {}, "数值表"), html("div", { class: "hz-scroll" }, table)));

  // 一条向量：每格一维，蓝为正、橙为负，越深绝对值越大。颜色相同的格子并成一个 SVG 元素：几千个格子也画得快
  const LEVELS = 40;
  function strip(groups, values, x, y, cell, height, most, fade = 1) {
    const width = Math.max(cell - 0.5, 1);
    values.forEach((value, d) => {
      const level = Math.max(1, Math.round(LEVELS * fade * clamp(Math.abs(value) / most, 0.02, 1))), key = value < 0 ? -level : level;
      groups.set(key, (groups.get(key) ?? "") + `M${(x + d * cell).toFixed(1)} ${y - height / 2}h${width.toFixed(1)}v${height}h-${width.toFixed(1)}z`);
    });
  }
  const stripPaths = (groups) => Array.from(groups, ([key, d]) => svg("path", { d, class: key < 0 ? "hz-negative" : "hz-positive", "fill-opacity": Math.abs(key) / LEVELS }));
  function draw() {
    const names = tokens().map((token) => shorten(token)), T = names.length, i = clamp(model.get("token"), 0, T - 1), s = model.get("step"), d = D();
    const q = vector("q", i), scores = matrix("scores", i), scaled = matrix("scaled", i), masked = matrix("masked", i), weights = matrix("weights", i);
    const allowed = masked.map(Number.isFinite), output = vector("output", i);
    const cell = clamp(208 / d, 2, 13), wide = cell * d, step = T <= 24 ? 27 : 22, top = 88, size = 16;
    const most = (list) => Math.max(1e-6, ...list.map(Math.abs));
    const keys = names.map((_, j) => vector("k", j)), values = names.map((_, j) => vector("v", j));
    const qMost = most(q), kMost = most(keys.flat()), vMost = most(values.flat());
    const label = Math.max(60, ...names.map((name) => textWidth(name, size))) + 14;
    // 各列的左边界：词元 | k | 点积 | 缩放后 | 掩码后 | 权重 | v
    const X = [label, label + wide + 18]; 
    for (const width of [84, 84, 84, 200]) X.push(X[X.length - 1] + width);
    const vLeft = X[5] + 6, width = vLeft + wide + 12, height = top + T * step + (s >= 4 ? 62 : 14);
    const y = (j) => top + (j + 0.5) * step, parts = [], groups = new Map();
    const focus = [[X[0] - 6, X[2] - 8], [X[2] - 8, X[3] - 8], [X[3] - 8, X[4] - 8], [X[4] - 8, X[5] - 4], [X[5] - 2, width - 4]][s];
    parts.push(svg("rect", { x: focus[0], y: 44, width: focus[1] - focus[0], height: top - 44 + T * step + 6, rx: 6, class: "hz-frame" }));
    parts.push(svg("text", { x: label - 10, y: 20, "text-anchor": "end", class: "hz-token hz-picked", "font-size": size }, names[i]),
      svg("text", { x: X[0] + wide + 8, y: 20, class: "hz-heading" }, `← 查询 q，${d} 维`));
    strip(groups, q, X[0], 20, cell, 18, qMost);
    const headings = [[X[0], "键 k"], [X[1] + 56, "q·k"], [X[2] + 56, "÷ √d"], [X[3] + 56, "掩码后"], [X[4], "权重"], [vLeft, "值 v"]];
    headings.forEach(([x, text], c) => { if (c === 0 || c - 1 <= s || (c === 5 && s >= 4)) parts.push(svg("text", { x, y: 64, class: "hz-heading", "text-anchor": c >= 1 && c <= 3 ? "end" : "start" }, text)); });
    names.forEach((name, j) => {
      const off = s >= 2 && !allowed[j], dim = off ? " hz-off" : "";
      const number = (x, text, extra = "") => parts.push(svg("text", { x: x + 56, y: y(j), "text-anchor": "end", "font-size": 14, class: "hz-number" + extra + dim }, text));
      parts.push(svg("text", { x: label - 10, y: y(j), "text-anchor": "end", "font-size": size, class: "hz-token" + (j === i ? " hz-picked" : "") + dim }, name));
      strip(groups, keys[j], X[0], y(j), cell, step * 0.62, kMost, off ? 0.25 : 1);
      number(X[1], show(scores[j]), s === 0 ? " hz-now" : "");
      if (s >= 1) number(X[2], show(scaled[j]), s === 1 ? " hz-now" : "");
      if (s >= 2) number(X[3], show(masked[j]), s === 2 ? " hz-now" : "");
      if (s >= 3) {
        parts.push(svg("rect", { x: X[4], y: y(j) - step * 0.3, width: Math.max(0.5, 140 * weights[j]), height: step * 0.6, rx: 2, class: "hz-bar" }),
          svg("text", { x: X[4] + 140 * weights[j] + 6, y: y(j), "font-size": 12, class: "hz-number" }, show(weights[j])));
      }
      if (s >= 4) strip(groups, values[j], vLeft, y(j), cell, step * 0.62, vMost, Math.max(0.06, opacity(weights[j])));
    });
    if (s >= 4) {
      const yOut = top + T * step + 36;
      parts.push(svg("line", { x1: vLeft, x2: vLeft + wide, y1: yOut - 20, y2: yOut - 20, class: "hz-rule" }),
        svg("text", { x: vLeft - 10, y: yOut, "text-anchor": "end", class: "hz-heading" }, `「${names[i]}」的新向量 =`));
      strip(groups, output, vLeft, yOut, cell, 20, most(output));
    }
    picture.replaceChildren(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...parts, ...stripPaths(groups)));

    const best = weights.indexOf(Math.max(...weights)), name = tokens()[i], other = tokens()[best];
    const hidden = allowed.filter((ok) => !ok).length, root2 = Math.sqrt(d);
    const factor = (x) => (x < 0 ? `(${show(x)})` : show(x));
    const few = (a, b) => a.slice(0, 3).map((x, n) => `${factor(x)} × ${factor(b[n])}`).join(" + ");
    const sum = masked.reduce((total, x) => total + (Number.isFinite(x) ? Math.exp(x) : 0), 0);
    const top3 = weights.map((w, j) => [w, j]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    formula.textContent = [
      `q(${name})·k(${other}) = ${few(q, keys[best])} + … = ${show(scores[best])}`,
      `${show(scores[best])} ÷ √${d} = ${show(scores[best])} ÷ ${show(root2)} = ${show(scaled[best])}`,
      hidden ? `${hidden} 个不许看的位置：分数 → −∞` : "这一行没有要遮的位置：分数不变",
      `exp(${show(masked[best])}) ÷ Σ exp(分数) = ${show(Math.exp(masked[best]))} ÷ ${show(sum)} = ${show(weights[best])}`,
      top3.map(([w, j]) => `${show(w)} × v(${tokens()[j]})`).join(" + ") + (T > 3 ? " + …" : ""),
    ][s];
    status.textContent = `第 ${s + 1} 步，共 5 步：` + [
      `「${name}」拿自己的查询 q，和每个词元的键 k 做点积：方向越一致，分数越高。`,
      `每个分数除以 √d（d = ${d}），免得维数一大，分数就大得让 softmax 饱和。`,
      hidden ? "不许看的位置把分数换成 −∞，下一步的 softmax 会给它恰好 0。" : "这里每个位置都可以看；要遮的位置，分数会换成 −∞。",
      `softmax 把分数变成权重：都不小于 0，一行之和是 1。最大的是「${other}」${show(weights[best])}。`,
      "按权重把每个词元的值 v 加起来，就是这个头给它的新向量。",
    ][s];
    picture.setAttribute("aria-label", status.textContent);
    table.replaceChildren(html("caption", {}, `「${name}」的每一步`),
      html("thead", {}, html("tr", {}, ...["词元", "q·k", "÷ √d", "掩码后", "权重"].map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...tokens().map((token, j) => html("tr", {}, html("td", {}, token),
        ...[scores, scaled, masked, weights].map((list) => html("td", {}, show(list[j], 3)))))));
    choose.replaceChildren(...tokens().map((token, j) => html("option", { value: j }, `${j} ${token}`)));
    choose.value = String(i);
    tabs.forEach((tab, n) => { tab.setAttribute("aria-pressed", n === s); });
    back.disabled = s === 0;
    next.disabled = s === STEPS.length - 1;
  }

  picture.addEventListener("click", (event) => {
    const T = tokens().length, step = T <= 24 ? 27 : 22;
    const j = Math.floor((event.clientY - picture.firstChild.getBoundingClientRect().top - 88) / step);
    if (j >= 0 && j < T) save(model, { token: j });
  });
  const moves = {
    ArrowLeft: () => go(-1), ArrowRight: () => go(1), Home: () => go(-9), End: () => go(9),
    ArrowUp: () => save(model, { token: (model.get("token") + tokens().length - 1) % tokens().length }),
    ArrowDown: () => save(model, { token: (model.get("token") + 1) % tokens().length }),
  };
  root.addEventListener("keydown", (event) => {
    if (event.target === choose || !moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });
  draw();
  const stop = listen(model, ["token", "step"], draw);
  return () => { font(); stop(); };
}
export default { render };
