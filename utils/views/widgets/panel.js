// 一栏：标题、主图、缩略图、数值表。并排比较时有两栏，共用层、头、视图、选中的词元和颜色标尺。
// prefix 是 Python 那边属性名的前缀："" 是第一栏，"other_" 是第二栏。
function makeSource(model, prefix, index) {
  const key = { tokens: `${prefix}tokens`, weights: `${prefix}weights`, layers: prefix ? "other_layers" : "n_layers", heads: prefix ? "other_heads" : "n_heads" };
  const layers = () => model.get(key.layers), heads = () => model.get(key.heads), tokens = () => model.get(key.tokens);
  const layer = () => clamp(model.get("layer"), 0, layers() - 1), head = () => clamp(model.get("head"), 0, heads() - 1);
  const bytes = (l, h) => {
    const data = model.get(key.weights), size = tokens().length ** 2;
    return new Uint8Array(data.buffer, data.byteOffset + (l * heads() + h) * size, size);
  };
  const name = () => model.get("names")[index] ?? "";
  const clamped = () => layer() !== model.get("layer") || head() !== model.get("head");
  const where = () => `层 ${layer()} · 头 ${head()}` + (clamped() ? `（这个模型只有 ${layers()} 层 × ${heads()} 头）` : "");
  const current = () => ({ names: tokens().map((token) => shorten(token)), T: tokens().length, weights: bytes(layer(), head()) });
  return { layers, heads, tokens, layer, head, bytes, name, where, current, full: () => [name(), where()].filter(Boolean).join("：") };
}

// 缩略图：每行一层，每列一头，画法与主图相同
function thumbRows(source, scale) {
  const L = source.layers(), H = source.heads(), T = source.tokens().length, side = clamp(Math.floor(300 / H), 22, 52);
  return Array.from({ length: L }, (_, l) => html("div", { class: "hz-thumbrow" }, html("span", { class: "hz-thumblabel", "aria-hidden": "true" }, `层 ${l}`),
    ...Array.from({ length: H }, (_, h) => {
      const canvas = html("canvas", { "aria-hidden": "true", class: T > side ? "" : "hz-crisp" });
      paintHead(canvas, source.bytes(l, h), T, scale);
      const button = html("button", { type: "button", role: "radio", class: "hz-thumb", title: `层 ${l} · 头 ${h}`, "aria-label": `层 ${l}，头 ${h}`, "data-layer": l, "data-head": h }, canvas);
      button.style.width = button.style.height = `${side}px`;
      return button;
    })));
}

function makePanel(source, narrow) {
  const title = html("div", { class: "hz-title" });
  const picture = html("div", { class: "hz-picture", tabindex: 0, role: "application", "aria-roledescription": "可用方向键操作的图" });
  const thumbs = html("div", { class: "hz-thumbs", role: "radiogroup" });
  const side = html("div", { class: "hz-side" }, html("div", { class: "hz-caption" }, "每行一层，每列一头：点一张，放大看"), thumbs);
  const table = html("table", { class: "hz-table" });
  const node = html("div", { class: "hz-panel" }, title, html("div", { class: "hz-main" }, picture, side));
  let view = null, head = source.current();

  function draw(kind, scale) {
    head = source.current();
    view = (kind === "matrix" ? matrixView : linesView)(head, scale, narrow ? node.clientWidth || 400 : 0);   // 两栏挤在一屏里：画成一栏那么宽
    picture.replaceChildren(view.node);
    title.textContent = source.full();
    title.hidden = !narrow;
    markThumb(false);
  }
  function drawThumbs(scale) {
    thumbs.setAttribute("aria-label", `${source.name()}各层各头的缩略图`);
    thumbs.replaceChildren(...thumbRows(source, scale));
    markThumb(false);
  }
  function markThumb(focus) {
    for (const button of thumbs.querySelectorAll("button")) {
      const chosen = Number(button.dataset.layer) === source.layer() && Number(button.dataset.head) === source.head();
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      if (chosen && focus) button.focus();
    }
  }
  const inside = (i) => (i < head.T ? i : -1);   // 两句话不一样长时，短的那句没有这个词元
  const most = (picked) => Math.max(...shownValues(head, inside(picked)), 0.25);
  const mark = (picked, key, scaleTop) => view.mark(inside(picked), inside(key), scaleTop);
  const point = (event) => {
    const box = view.node.getBoundingClientRect();
    return view.place(event.clientX - box.left, event.clientY - box.top);
  };

  // 一句话：选中的词元最关注谁；没有选，就说谁平均被看得最多
  function summary(picked, key) {
    const names = source.tokens(), i = inside(picked), j = inside(key), where = source.full();
    if (i >= 0 && j >= 0) return `${where}：「${names[i]}」→「${names[j]}」的权重是 ${(head.weights[i * head.T + j] / 255).toFixed(2)}`;
    const best = shownValues(head, i).map((w, n) => [w, n]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const list = best.map(([w, n]) => `「${names[n]}」${w.toFixed(2)}`).join("、");
    return i >= 0 ? `${where}：「${names[i]}」最关注 ${list}` : `${where}：平均起来，被看得最多的是 ${list}`;
  }
  function fillTable(picked) {
    const i = inside(picked), names = source.tokens(), values = shownValues(head, i);
    const what = i >= 0 ? `位置 ${i} 的「${names[i]}」给每个词元的权重` : "每个词元平均收到的权重";
    table.replaceChildren(html("caption", {}, `${source.full()}：${what}`),
      html("thead", {}, html("tr", {}, ...["位置", "词元", "权重"].map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...names.map((name, j) => html("tr", {}, html("td", {}, j), html("td", {}, name), html("td", {}, values[j].toFixed(3))))));
  }
  return { node, picture, thumbs, table, source, draw, drawThumbs, markThumb, most, mark, point, summary, fillTable, view: () => view, head: () => head };
}
