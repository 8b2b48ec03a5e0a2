// 注意力图：连线或矩阵，选层、选头、选词元，实时改句子，两栏并排比较。权重由 Python 送来，每个 0 到 255 的整数。

// 句子框：停手半秒或按回车就送给内核；输入法还没上屏的拼音不送
function sentenceBox(model, name, label, onSend) {
  const input = html("input", { type: "text", class: "hz-input", spellcheck: "false", autocomplete: "off", dir: "auto", "aria-label": label });
  let timer = 0, composing = false;
  input.value = model.get(name);
  const send = () => {
    clearTimeout(timer);
    const text = input.value.replace(/\p{Cs}/gu, "\uFFFD");   // 半个字符送不到内核，换成 U+FFFD
    if (text === model.get(name)) return;
    onSend();
    save(model, { [name]: text });
  };
  const later = () => { clearTimeout(timer); if (!composing) timer = setTimeout(send, 500); };
  input.addEventListener("compositionstart", () => { composing = true; clearTimeout(timer); });
  input.addEventListener("compositionend", () => { composing = false; later(); });
  input.addEventListener("input", later);
  input.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) send(); });
  const follow = () => { if (document.activeElement !== input) input.value = model.get(name); };
  return { node: html("label", { class: "hz-sentence" }, html("span", {}, label), input), follow, stop: () => clearTimeout(timer) };
}

function numberSelect(model, name, count, text) {
  const select = html("select", { class: "hz-select", "aria-label": text });
  select.addEventListener("change", () => save(model, { [name]: Number(select.value) }));
  const refill = () => {
    if (select.length !== count()) select.replaceChildren(...Array.from({ length: count() }, (_, i) => html("option", { value: i }, i)));
    select.value = String(model.get(name));
  };
  return { node: html("label", {}, html("span", {}, text), select), refill };
}

function keyHints() {
  const keys = [["↑ ↓", "选词元"], ["← →", "换头"], ["PgUp PgDn", "换层"], ["V", "换视图"], ["Esc", "取消选择"]];
  return html("div", { class: "hz-hint" }, ...keys.flatMap(([key, text]) => [html("kbd", {}, key), ` ${text}  `]));
}

function render({ model, el }) {
  const root = html("div", { class: "hz hz-attention", role: "group", lang: "zh-CN", "aria-label": "注意力图" });
  el.append(root);
  ownKeys(root);
  const font = followFont(root, model);
  const compare = model.get("other_tokens").length > 0;
  const sources = [makeSource(model, "", 0), ...(compare ? [makeSource(model, "other_", 1)] : [])];
  const panels = sources.map((source) => makePanel(source, compare));
  const most = (get) => Math.max(...sources.map(get));
  const counts = { layer: () => most((source) => source.layers()), head: () => most((source) => source.heads()), token: () => most((source) => source.tokens().length) };
  let hover = -1, hoverKey = -1, waiting = false, scale = makeScale(root);
  const active = () => (hover >= 0 ? hover : model.get("token"));

  // ---------- 零件 ----------
  const busy = html("span", { class: "hz-busy", "aria-hidden": "true" });
  const started = () => {
    waiting = true;
    busy.textContent = "计算中…";
    setTimeout(() => { if (waiting) busy.textContent = "内核正忙，或已经停止"; }, 10000);
  };
  const boxes = [];
  if (model.get("live")) boxes.push(sentenceBox(model, "text", model.get("other_live") ? "第一句" : "句子", started));
  if (model.get("other_live")) boxes.push(sentenceBox(model, "other_text", "第二句", started));
  const form = html("div", { class: "hz-row" }, ...boxes.map((box) => box.node), busy);
  const note = html("div", { class: "hz-note", role: "status" });   // 哪些字不在词表里
  const error = html("div", { class: "hz-error", role: "alert" });
  const layerBox = numberSelect(model, "layer", counts.layer, "层"), headBox = numberSelect(model, "head", counts.head, "头");
  const button = (name, text, action, attributes) => {
    const made = html("button", { type: "button", class: name, ...attributes }, text);
    made.addEventListener("click", action);
    return made;
  };
  const views = [["lines", "连线"], ["matrix", "矩阵"]].map(([name, text]) => button("hz-tab", text, () => save(model, { view: name }), { "data-view": name }));
  const legend = makeLegend();
  const bar = html("div", { class: "hz-row" }, layerBox.node, headBox.node, html("span", { class: "hz-tabs", role: "group", "aria-label": "视图" }, ...views), legend.node);
  const status = html("div", { class: "hz-status" });
  const spoken = html("div", { class: "hz-sr hz-live", role: "status", "aria-live": "polite" });   // 只在选择变了时更新，鼠标划过不念
  const numbers = html("div", { class: "hz-scroll hz-sr" }, ...panels.map((panel) => panel.table));
  const toggle = button("hz-button", "显示数值表", () => {
    const shown = numbers.classList.toggle("hz-sr") === false;
    toggle.setAttribute("aria-expanded", shown);
    toggle.textContent = shown ? "收起数值表" : "显示数值表";
  }, { "aria-expanded": false });
  const exports = ["PNG", "SVG", "CSV"].map((kind) => button("hz-button", kind, () => saveAs(kind), { "data-export": kind, "aria-label": `把当前的头存成 ${kind}` }));
  root.append(form, error, note, bar, status, spoken, html("div", { class: "hz-panels" + (compare ? " hz-compare" : "") }, ...panels.map((panel) => panel.node)),
    keyHints(), html("div", { class: "hz-row hz-tools" }, toggle, html("span", { class: "hz-caption" }, "存下当前的头："), ...exports), numbers);

  // ---------- 画 ----------
  function refresh() {
    const picked = active(), top = Math.max(...panels.map((panel) => panel.most(picked)));   // 两栏的条形同一个比例
    for (const panel of panels) {
      panel.mark(picked, hoverKey, top);
      panel.picture.setAttribute("aria-label", panel.summary(picked, hoverKey));
    }
    status.replaceChildren(...panels.map((panel) => html("div", {}, panel.summary(picked, hoverKey) + (picked < 0 && !compare ? "。把鼠标移到一个词元上，或点选它。" : ""))));
  }
  function tell() {   // 给读屏软件：一句摘要和整张数值表
    spoken.textContent = panels.map((panel) => panel.summary(model.get("token"), -1)).join("；");
    panels.forEach((panel) => panel.fillTable(model.get("token")));
  }
  function draw() {
    hover = hoverKey = -1;
    layerBox.refill();
    headBox.refill();
    views.forEach((tab) => tab.setAttribute("aria-pressed", tab.dataset.view === model.get("view")));
    panels.forEach((panel) => panel.draw(model.get("view"), scale));
    refresh();
    tell();
  }
  let drawing = false;
  function drawSoon() {   // 点一张缩略图同时改了层和头，只画一次
    if (drawing) return;
    drawing = true;
    queueMicrotask(() => { drawing = false; draw(); });
  }
  function drawAll() {
    scale = makeScale(root);
    legend.paint(scale);
    panels.forEach((panel) => panel.drawThumbs(scale));
    draw();
  }
  function arrived() {
    waiting = false;
    busy.textContent = "";
    form.hidden = !boxes.length;
    error.textContent = model.get("error");
    note.textContent = model.get("note");
    panels.forEach((panel) => panel.picture.classList.toggle("hz-stale", model.get("error") !== ""));
    drawAll();
  }

  // ---------- 存成文件 ----------
  function inPrintColors(work) {   // 深色主题里存下来的图也用白底，好印在纸上
    const screen = scale;
    root.classList.add("hz-print");
    scale = makeScale(root);
    draw();
    const made = work();
    root.classList.remove("hz-print");
    scale = screen;
    draw();
    return made;
  }
  async function saveAs(kind) {
    const name = `attention-${compare ? "compare-" : ""}layer${model.get("layer")}-head${model.get("head")}.${kind.toLowerCase()}`;
    if (kind === "CSV") return download(new Blob([headCsv(panels)], { type: "text/csv;charset=utf-8" }), name);
    const text = inPrintColors(() => pictureSvg(root, panels, model.get("font")));
    download(kind === "SVG" ? new Blob([text], { type: "image/svg+xml;charset=utf-8" }) : await svgToPng(text), name);
  }

  // ---------- 鼠标与键盘 ----------
  const setHover = (i, j) => {
    if (i === hover && j === hoverKey) return;
    [hover, hoverKey] = [i, j];
    refresh();
  };
  const turn = (name, change) => save(model, { [name]: (model.get(name) + change + counts[name]()) % counts[name]() });
  const pick = (i) => save(model, { token: i });
  const moves = {
    ArrowDown: () => pick((model.get("token") + 1) % counts.token()),
    ArrowUp: () => pick((Math.max(model.get("token"), 0) + counts.token() - 1) % counts.token()),
    Home: () => pick(0), End: () => pick(counts.token() - 1), Escape: () => pick(-1),
    ArrowLeft: () => turn("head", -1), ArrowRight: () => turn("head", 1), PageUp: () => turn("layer", -1), PageDown: () => turn("layer", 1),
    v: () => save(model, { view: model.get("view") === "lines" ? "matrix" : "lines" }),
  };
  const thumbMoves = { ArrowLeft: ["head", -1], ArrowRight: ["head", 1], ArrowUp: ["layer", -1], ArrowDown: ["layer", 1] };
  for (const panel of panels) {
    panel.picture.addEventListener("mousemove", (event) => setHover(...panel.point(event)));
    panel.picture.addEventListener("mouseleave", () => setHover(-1, -1));
    panel.picture.addEventListener("click", (event) => {
      const [i] = panel.point(event);
      if (i >= 0) pick(i === model.get("token") ? -1 : i);
    });
    panel.picture.addEventListener("keydown", (event) => {
      const move = moves[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      hover = hoverKey = -1;
      move();
    });
    panel.thumbs.addEventListener("click", (event) => {
      const thumb = event.target.closest(".hz-thumb");
      if (thumb) save(model, { layer: Number(thumb.dataset.layer), head: Number(thumb.dataset.head) });
    });
    panel.thumbs.addEventListener("keydown", (event) => {
      const step = thumbMoves[event.key];
      if (!step) return;
      event.preventDefault();
      turn(...step);
      panel.markThumb(true);
    });
  }

  const stops = [
    font,
    listen(model, ["version"], arrived),
    listen(model, ["layer", "head", "view"], drawSoon),
    listen(model, ["token"], () => { refresh(); tell(); }),
    listen(model, ["text", "other_text"], () => boxes.forEach((box) => box.follow())),
  ];
  const theme = new MutationObserver(drawAll);   // 换了主题，画布和标尺的颜色要跟着换
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  arrived();
  requestAnimationFrame(drawAll);   // 放进页面之后才读得到主题颜色
  return () => { theme.disconnect(); boxes.forEach((box) => box.stop()); stops.forEach((stop) => stop()); };
}
export default { render };
