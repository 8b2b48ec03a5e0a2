// 一个头的两种画法：连线与矩阵。各自返回 { node, svg, place, mark }：
// place(x, y) 由鼠标位置求 [行, 列]，mark(行, 列, 最大值) 只重画随选择而变的部分。
// 参数 head = { names, T, weights }，weights 是 T × T 个 0 到 255 的整数；narrow：并排比较时一栏有多宽（像素），只有一栏时是 0。
const rowOf = ({ weights, T }, i) => Array.from(weights.subarray(i * T, (i + 1) * T), (level) => level / 255);
function meanReceived({ weights, T }) {
  const sums = new Array(T).fill(0);
  weights.forEach((level, n) => { sums[n % T] += level; });
  return sums.map((sum) => sum / 255 / T);
}
const shownValues = (head, picked) => (picked >= 0 ? rowOf(head, picked) : meanReceived(head));
const heading = (attributes, text) => svg("text", { class: "hz-heading", ...attributes }, text);

// ---------- 连线 ----------
function lineSizes(names, T, narrow) {
  const size = T <= 26 ? 16 : T <= 42 ? 14 : 12, step = size + (T <= 26 ? 11 : T <= 42 ? 7 : 5), top = 34;
  const label = Math.max(56, ...names.map((name) => textWidth(name, size))) + 14;
  const bar = narrow ? 60 : 170, tail = narrow ? 46 : 60, middle = narrow ? clamp(narrow - 2 * label - bar - tail - 8, 90, 180) : 290;
  const left = label, right = left + middle, bars = right + label;
  return { size, step, top, left, right, bars, bar, width: bars + bar + tail, height: top + T * step + 6 };
}

// 要画的连线，弱的在前、强的在后：强的不会被盖住。权重（255 级）相同的并成一组，一组只用一个 SVG 元素，重画才快
function linesToDraw({ weights, T }, picked) {
  const least = picked >= 0 ? 1 : 8, groups = new Map();   // 255 级里的 8 级约是 0.03
  for (let n = picked >= 0 ? picked * T : 0, end = picked >= 0 ? n + T : weights.length; n < end; n++) {
    const level = weights[n];
    if (level < least) continue;
    if (!groups.has(level)) groups.set(level, []);
    groups.get(level).push([Math.floor(n / T), n % T]);
  }
  return [...groups].sort((a, b) => a[0] - b[0]);
}

function linesView(head, scale, narrow) {
  const { names, T } = head, at = lineSizes(names, T, narrow), y = (i) => at.top + (i + 0.5) * at.step;
  const under = svg("g", {}), over = svg("g", {}), barHeading = heading({ x: at.bars, y: 16 }, "");
  const queries = names.map((name, i) => svg("text", { x: at.left - 6, y: y(i), "text-anchor": "end", "font-size": at.size, class: "hz-token hz-query" }, name));
  const keys = names.map((name, i) => svg("text", { x: at.right + 6, y: y(i), "font-size": at.size, class: "hz-token hz-key" }, name));
  const node = svg("svg", { width: at.width, height: at.height, viewBox: `0 0 ${at.width} ${at.height}`, "aria-hidden": "true" },
    under, heading({ x: at.left, y: 16, "text-anchor": "end" }, "谁在看"), heading({ x: at.right, y: 16 }, "看向谁"),
    barHeading, over, ...queries, ...keys);
  const x1 = at.left + 4, x2 = at.right - 4, middle = (x1 + x2) / 2;
  const curve = ([i, j]) => `M${x1} ${y(i)}C${middle} ${y(i)} ${middle} ${y(j)} ${x2} ${y(j)}`;
  const lineOf = ([level, pairs], one) => svg("path", { d: pairs.map(curve).join(""), class: "hz-line", stroke: scale.css[level],
    "stroke-width": (one ? 1 + 5 * level / 255 : 0.8 + 3 * level / 255).toFixed(2) });
  const barOf = (w, j, most) => [
    svg("rect", { x: at.bars, y: y(j) - at.step * 0.3, width: Math.max(1, at.bar * w / most), height: at.step * 0.6, rx: 2, class: "hz-bar", "fill-opacity": 0.35 + 0.65 * opacity(w) }),
    svg("text", { x: at.bars + at.bar * w / most + 7, y: y(j), "font-size": 13, class: "hz-number" }, w.toFixed(2)),
  ];
  const mark = (picked, _, most) => {
    const one = picked >= 0, shown = shownValues(head, picked), own = Math.max(...shown, 0.004);
    under.replaceChildren(...(one ? [svg("rect", { x: 2, y: at.top + picked * at.step, width: at.left - 2, height: at.step, rx: 4, class: "hz-band" })] : []));
    over.replaceChildren(...linesToDraw(head, picked).map((group) => lineOf(group, one)), ...shown.flatMap((w, j) => barOf(w, j, most)));
    keys.forEach((key, j) => { key.style.opacity = one ? 0.45 + 0.55 * opacity(shown[j] / own) : 1; });
    queries.forEach((query, i) => query.classList.toggle("hz-picked", i === picked));
    const long = one ? "给出的权重（一行之和是 1）" : "平均收到的权重";
    barHeading.textContent = narrow ? (one ? "给出的权重" : "平均收到") : long;
  };
  const place = (x, py) => { const i = Math.floor((py - at.top) / at.step); return i >= 0 && i < T ? [i, -1] : [-1, -1]; };
  return { node, svg: node, place, mark };
}

// ---------- 矩阵 ----------
function matrixSizes(names, T, narrow) {
  const longest = (size) => Math.max(...names.map((name) => textWidth(name, size))) + 12;
  const side = narrow ? clamp(narrow - longest(16) - 40, 180, 360) : 570;
  const cell = clamp(Math.floor(side / T), narrow ? 7 : 11, narrow ? 30 : 40), size = clamp(cell - 4, narrow ? 7 : 9, 16);
  const label = longest(size), x0 = label + 24, y0 = label + 26;
  return { cell, size, x0, y0, width: x0 + T * cell + 8, height: y0 + T * cell + 8 };
}

function matrixLabels(names, at) {
  return names.flatMap((name, i) => {
    const center = (i + 0.5) * at.cell, x = at.x0 + center, y = at.y0 - 6, long = [...name].length > 1;
    return [
      svg("text", { x: at.x0 - 6, y: at.y0 + center, "text-anchor": "end", "font-size": at.size, class: "hz-token hz-query" }, name),
      svg("text", { x, y: long ? y : y - at.size / 2, "font-size": at.size, class: "hz-token hz-key",
        "text-anchor": long ? "start" : "middle", transform: long ? `rotate(-90 ${x} ${y})` : null }, name),
    ];
  });
}

function matrixNumbers({ weights, T }, at, scale) {
  if (at.cell < 30) return [];
  return Array.from(weights, (level, n) => [level, n]).filter(([level]) => level >= 3).map(([level, n]) => svg("text", {
    x: at.x0 + (n % T + 0.5) * at.cell, y: at.y0 + (Math.floor(n / T) + 0.5) * at.cell, "text-anchor": "middle", "font-size": 11,
    class: "hz-cellnumber", fill: scale.onDark[level] ? "#ffffff" : "#111111" }, (level / 255).toFixed(2).replace(/^0/, "")));
}

function matrixGaps(T, at) {
  const end = T * at.cell;
  const d = Array.from({ length: T + 1 }, (_, n) => n * at.cell)
    .map((p) => `M${at.x0 + p - 0.5} ${at.y0}v${end}M${at.x0} ${at.y0 + p - 0.5}h${end}`).join("");
  return svg("path", { d, class: "hz-gap" });
}

function matrixView(head, scale, narrow) {
  const { names, T, weights } = head, at = matrixSizes(names, T, narrow), frames = svg("g", {});
  const canvas = html("canvas", { class: "hz-cells", "aria-hidden": "true" });
  paintHead(canvas, weights, T, scale);
  Object.assign(canvas.style, { left: `${at.x0}px`, top: `${at.y0}px`, width: `${T * at.cell}px`, height: `${T * at.cell}px` });
  const node = svg("svg", { width: at.width, height: at.height, viewBox: `0 0 ${at.width} ${at.height}`, "aria-hidden": "true" },
    heading({ x: at.x0, y: 13 }, "看向谁（键）→"),
    heading({ x: 12, y: at.y0, "text-anchor": "end", transform: `rotate(-90 12 ${at.y0})` }, "谁在看（查询）"),
    ...matrixLabels(names, at), matrixGaps(T, at), ...matrixNumbers(head, at, scale), frames);
  const queries = node.querySelectorAll(".hz-query"), keys = node.querySelectorAll(".hz-key");
  const frame = (x, y, width, extra = "") => svg("rect", { x: at.x0 + x * at.cell - 1.5, y: at.y0 + y * at.cell - 1.5, width: width * at.cell + 2, height: at.cell + 2, class: "hz-frame" + extra });
  const mark = (picked, key) => {
    queries.forEach((text, i) => text.classList.toggle("hz-picked", i === picked));
    keys.forEach((text, j) => text.classList.toggle("hz-picked", j === key));
    frames.replaceChildren(...(picked < 0 ? [] : [frame(0, picked, T), ...(key < 0 ? [] : [frame(key, picked, 1, " hz-strong")])]));
  };
  const place = (x, y) => {
    const i = Math.floor((y - at.y0) / at.cell), j = Math.floor((x - at.x0) / at.cell);
    return i >= 0 && i < T ? [i, j >= 0 && j < T ? j : -1] : [-1, -1];
  };
  // 存成 SVG 时没有画布，每格画一个方块
  const cells = () => Array.from(weights, (level, n) => svg("rect", { x: at.x0 + (n % T) * at.cell, y: at.y0 + Math.floor(n / T) * at.cell,
    width: at.cell, height: at.cell, fill: scale.css[level] }));
  return { node: html("div", { class: "hz-layers" }, canvas, node), svg: node, place, mark, cells };
}
