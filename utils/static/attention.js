// 注意力图：连线或矩阵，选层、选头、选词元，实时改句子。权重由 Python 送来，每个 0 到 255 的整数。
function render({ model, el }) {
  const root = html("div", { class: "hz hz-attention", role: "group", "aria-label": "注意力图" });
  el.append(root);
  ownKeys(root);
  let hover = -1, hoverKey = -1, timer = 0, waiting = false, composing = false;

  // ---------- 数据 ----------
  const tokens = () => model.get("tokens");
  const weight = (layer, head, i, j) => {
    const T = tokens().length, data = model.get("weights");
    return data.getUint8(((layer * model.get("n_heads") + head) * T + i) * T + j) / 255;
  };
  const current = (i, j) => weight(model.get("layer"), model.get("head"), i, j);
  const active = () => (hover >= 0 ? hover : model.get("token"));
  const row = (i) => tokens().map((_, j) => current(i, j));
  const received = () => tokens().map((_, j) => tokens().reduce((sum, _, i) => sum + current(i, j), 0) / tokens().length);

  // ---------- 句子 ----------
  const input = html("input", { type: "text", class: "hz-input", spellcheck: "false", autocomplete: "off", dir: "auto" });
  input.value = model.get("text");
  const label = html("label", { class: "hz-sentence" }, html("span", {}, "句子"), input);
  const busy = html("span", { class: "hz-busy", "aria-hidden": "true" });
  const form = html("div", { class: "hz-row" }, label, busy);
  const error = html("div", { class: "hz-error", role: "alert" });
  const send = () => {
    clearTimeout(timer);
    if (input.value === model.get("text")) return;
    waiting = true;
    busy.textContent = "计算中…";
    setTimeout(() => { if (waiting) busy.textContent = "内核正忙，或已经停止"; }, 10000);
    save(model, { text: input.value });
  };
  input.addEventListener("compositionstart", () => { composing = true; clearTimeout(timer); });
  input.addEventListener("compositionend", () => { composing = false; clearTimeout(timer); timer = setTimeout(send, 500); });
  input.addEventListener("input", () => { clearTimeout(timer); if (!composing) timer = setTimeout(send, 500); });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) send(); });

  // ---------- 工具条 ----------
  const choose = (name, count, text) => {
    const select = html("select", { class: "hz-select", "aria-label": text });
    select.addEventListener("change", () => save(model, { [name]: Number(select.value) }));
    const refill = () => {
      select.replaceChildren(...Array.from({ length: model.get(count) }, (_, i) => html("option", { value: i }, i)));
      select.value = String(model.get(name));
    };
    return { node: html("label", {}, html("span", {}, text), select), refill };
  };
  const layerBox = choose("layer", "n_layers", "层"), headBox = choose("head", "n_heads", "头");
  const views = [["lines", "连线"], ["matrix", "矩阵"]].map(([name, text]) => {
    const button = html("button", { type: "button", class: "hz-tab", "data-view": name }, text);
    button.addEventListener("click", () => save(model, { view: name }));
    return button;
  });
  const legend = html("span", { class: "hz-legend", "aria-hidden": "true" }, "权重");
  for (const value of [0.01, 0.05, 0.2, 0.5, 1]) {
    const swatch = html("i", {});
    swatch.style.opacity = opacity(value);
    legend.append(html("span", {}, swatch, String(value)));
  }
  const bar = html("div", { class: "hz-row" }, layerBox.node, headBox.node,
    html("span", { class: "hz-tabs", role: "group", "aria-label": "视图" }, ...views), legend);

  // ---------- 主图与缩略图 ----------
  const picture = html("div", { class: "hz-picture", tabindex: 0, role: "application", "aria-roledescription": "可用方向键操作的图" });
  const thumbs = html("div", { class: "hz-thumbs", role: "radiogroup", "aria-label": "各层各头的缩略图" });
  const side = html("div", { class: "hz-side" }, html("div", { class: "hz-caption" }, "每行一层，每列一头：点一张放大看"), thumbs);
  const status = html("div", { class: "hz-status", role: "status", "aria-live": "polite" });
  const hint = html("div", { class: "hz-hint" });
  for (const [key, text] of [["↑ ↓", "选词元"], ["← →", "换头"], ["PgUp PgDn", "换层"], ["V", "换视图"], ["Esc", "取消选择"]]) {
    hint.append(html("kbd", {}, key), ` ${text}  `);
  }
  const table = html("table", { class: "hz-table" });
  const details = html("details", {}, html("summary", {}, "数值表"), html("div", { class: "hz-scroll" }, table));
  root.append(form, error, bar, status, html("div", { class: "hz-main" }, picture, side), hint, details);

  let place = () => -1;       // 由鼠标位置求出 [行，列]
  let highlight = () => {};   // 只重画随选择而变的部分

  function drawLines() {
    const names = tokens().map((token) => shorten(token)), T = names.length;
    const size = T <= 26 ? 16 : T <= 42 ? 14 : 12, step = size + (T <= 26 ? 11 : T <= 42 ? 7 : 5), top = 34;
    const label = Math.max(56, ...names.map((name) => textWidth(name, size))) + 14;
    const left = label, right = left + 290, bars = right + label, width = bars + 230, height = top + T * step + 6;
    const y = (i) => top + (i + 0.5) * step;
    const moving = svg("g", {});
    const heading = (x, anchor, text) => svg("text", { x, y: 16, class: "hz-heading", "text-anchor": anchor }, text);
    const barHeading = heading(bars, "start", "");
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      heading(left, "end", "谁在看"), heading(right, "start", "看向谁"), barHeading, moving);
    const texts = names.map((name, i) => {
      const pair = [svg("text", { x: left - 6, y: y(i), "text-anchor": "end", "font-size": size, class: "hz-token hz-query" }, name),
                    svg("text", { x: right + 6, y: y(i), "font-size": size, class: "hz-token hz-key" }, name)];
      root.append(...pair);
      return pair;
    });
    place = (px, py) => { const i = Math.floor((py - top) / step); return i >= 0 && i < T ? [i, -1] : [-1, -1]; };
    highlight = () => {
      const picked = active(), one = picked >= 0, shown = one ? row(picked) : received(), parts = [];
      if (one) parts.push(svg("rect", { x: 2, y: top + picked * step, width: left - 2, height: step, rx: 4, class: "hz-band" }));
      for (let i = 0; i < T; i++) {
        if (one && i !== picked) continue;
        for (let j = 0; j < T; j++) {
          const w = current(i, j);
          if (w < (one ? 0.004 : 0.03)) continue;
          const x1 = left + 4, x2 = right - 4, mid = (x1 + x2) / 2;
          parts.push(svg("path", { d: `M${x1} ${y(i)}C${mid} ${y(i)} ${mid} ${y(j)} ${x2} ${y(j)}`, class: "hz-line",
            "stroke-width": one ? 0.8 + 5 * w : 0.6 + 3 * w, "stroke-opacity": one ? opacity(w) : 0.75 * opacity(w) }));
        }
      }
      const most = Math.max(...shown, 0.004);
      shown.forEach((w, j) => {
        parts.push(svg("rect", { x: bars, y: y(j) - step * 0.3, width: Math.max(1, 170 * w / Math.max(most, 0.25)), height: step * 0.6,
          rx: 2, class: "hz-bar", "fill-opacity": 0.25 + 0.75 * opacity(w) }));
        parts.push(svg("text", { x: bars + 170 * w / Math.max(most, 0.25) + 7, y: y(j), "font-size": 12, class: "hz-number" }, w.toFixed(2)));
        texts[j][1].style.opacity = one ? 0.35 + 0.65 * opacity(w / most) : 1;
        texts[j][0].classList.toggle("hz-picked", j === picked);
      });
      barHeading.textContent = one ? "给出的权重（一行之和是 1）" : "平均收到的权重";
      moving.replaceChildren(...parts);
    };
    picture.replaceChildren(root);
    highlight();
  }

  function drawMatrix() {
    const names = tokens().map((token) => shorten(token)), T = names.length;
    const cell = clamp(Math.floor(570 / T), 11, 40), size = clamp(cell - 4, 9, 16);
    const label = Math.max(...names.map((name) => textWidth(name, size))) + 12, head = label + 22;
    const x0 = label + 20, y0 = head, width = x0 + T * cell + 8, height = y0 + T * cell + 8;
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      svg("text", { x: x0, y: 13, class: "hz-heading" }, "看向谁（键）→"),
      svg("text", { x: 12, y: y0, class: "hz-heading", "text-anchor": "end", transform: `rotate(-90 12 ${y0})` }, "谁在看（查询）"));
    names.forEach((name, i) => {
      const x = x0 + (i + 0.5) * cell, long = [...name].length > 1;
      root.append(svg("text", { x: x0 - 6, y: y0 + (i + 0.5) * cell, "text-anchor": "end", "font-size": size, class: "hz-token hz-query" }, name),
        svg("text", { x, y: y0 - 8 - (long ? 0 : size / 2), "font-size": size, class: "hz-token hz-key", "text-anchor": long ? "start" : "middle",
          transform: long ? `rotate(-90 ${x} ${y0 - 8})` : null }, name));
      names.forEach((_, j) => {
        const w = current(i, j);
        root.append(svg("rect", { x: x0 + j * cell, y: y0 + i * cell, width: cell - 1, height: cell - 1, class: "hz-cell", "fill-opacity": opacity(w) }));
        if (cell >= 30 && w >= 0.01) root.append(svg("text", { x: x0 + (j + 0.5) * cell, y: y0 + (i + 0.5) * cell, "text-anchor": "middle",
          "font-size": 10, class: w > 0.3 ? "hz-token hz-onink" : "hz-token" }, w.toFixed(2).replace(/^0/, "")));
      });
    });
    const moving = svg("g", {});
    root.append(moving);
    const queries = root.querySelectorAll(".hz-query");
    place = (px, py) => {
      const i = Math.floor((py - y0) / cell), j = Math.floor((px - x0) / cell);
      return i >= 0 && i < T ? [i, j >= 0 && j < T ? j : -1] : [-1, -1];
    };
    highlight = () => {
      const picked = active();
      queries.forEach((node, i) => node.classList.toggle("hz-picked", i === picked));
      const parts = [];
      if (picked >= 0) parts.push(svg("rect", { x: x0 - 1.5, y: y0 + picked * cell - 1.5, width: T * cell + 2, height: cell + 2, class: "hz-frame" }));
      if (picked >= 0 && hoverKey >= 0) parts.push(svg("rect", { x: x0 + hoverKey * cell - 1.5, y: y0 + picked * cell - 1.5, width: cell + 2, height: cell + 2, class: "hz-frame hz-strong" }));
      moving.replaceChildren(...parts);
    };
    picture.replaceChildren(root);
    highlight();
  }

  function drawThumbs() {
    const L = model.get("n_layers"), H = model.get("n_heads"), T = tokens().length;
    const side = clamp(Math.floor(290 / H), 20, 52), ink = getComputedStyle(root).getPropertyValue("--hz-ink").trim();
    const number = parseInt(ink.slice(1), 16), [r, g, b] = [number >> 16, (number >> 8) & 255, number & 255];
    const rows = [];
    for (let l = 0; l < L; l++) {
      const line = html("div", { class: "hz-thumbrow" }, html("span", { class: "hz-thumblabel", "aria-hidden": "true" }, `层 ${l}`));
      for (let h = 0; h < H; h++) {
        const chosen = l === model.get("layer") && h === model.get("head");
        const canvas = html("canvas", { width: T, height: T, "aria-hidden": "true" }), context = canvas.getContext("2d");
        const image = context.createImageData(T, T);
        for (let i = 0; i < T * T; i++) {
          image.data.set([r, g, b, 255 * opacity(weight(l, h, Math.floor(i / T), i % T))], 4 * i);
        }
        context.putImageData(image, 0, 0);
        const button = html("button", { type: "button", role: "radio", class: "hz-thumb", "aria-checked": chosen, title: `层 ${l} · 头 ${h}`,
          "aria-label": `层 ${l}，头 ${h}`, tabindex: chosen ? 0 : -1, "data-layer": l, "data-head": h }, canvas);
        button.style.width = button.style.height = `${side}px`;
        button.addEventListener("click", () => { save(model, { layer: l, head: h }); });
        line.append(button);
      }
      rows.push(line);
    }
    thumbs.replaceChildren(...rows);
  }
  function markThumb(focus) {
    for (const button of thumbs.querySelectorAll("button")) {
      const chosen = Number(button.dataset.layer) === model.get("layer") && Number(button.dataset.head) === model.get("head");
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      if (chosen && focus) button.focus();
    }
  }

  // ---------- 文字：状态栏与数值表 ----------
  function describe() {
    const picked = active(), names = tokens(), where = `层 ${model.get("layer")} · 头 ${model.get("head")}`;
    const values = picked >= 0 ? row(picked) : received();
    const best = values.map((w, j) => [w, j]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const list = best.map(([w, j]) => `「${names[j]}」${w.toFixed(2)}`).join("、");
    if (picked >= 0 && hoverKey >= 0) status.textContent = `${where}：「${names[picked]}」→「${names[hoverKey]}」的权重是 ${current(picked, hoverKey).toFixed(2)}`;
    else if (picked >= 0) status.textContent = `${where}：「${names[picked]}」最关注 ${list}`;
    else status.textContent = `${where}：平均起来，被看得最多的是 ${list}。把鼠标移到一个词元上，或点选它。`;
    picture.setAttribute("aria-label", status.textContent);
    const title = picked >= 0 ? `${where}：位置 ${picked} 的「${names[picked]}」给每个词元的权重` : `${where}：每个词元平均收到的权重`;
    table.replaceChildren(html("caption", {}, title),
      html("thead", {}, html("tr", {}, ...["位置", "词元", "权重"].map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...names.map((name, j) => html("tr", {}, html("td", {}, j), html("td", {}, name), html("td", {}, values[j].toFixed(3))))));
  }
  function refresh() { highlight(); describe(); }
  function draw() {
    hover = hoverKey = -1;
    layerBox.refill();
    headBox.refill();
    form.style.display = model.get("live") ? "" : "none";
    views.forEach((button) => button.setAttribute("aria-pressed", button.dataset.view === model.get("view")));
    (model.get("view") === "matrix" ? drawMatrix : drawLines)();
    markThumb(false);
    describe();
  }
  function arrived() {
    waiting = false;
    busy.textContent = "";
    error.textContent = model.get("error");
    picture.classList.toggle("hz-stale", model.get("error") !== "");
    drawThumbs();
    draw();
  }

  // ---------- 鼠标与键盘 ----------
  const point = (event) => {
    const box = picture.firstChild.getBoundingClientRect();
    return place(event.clientX - box.left, event.clientY - box.top);
  };
  picture.addEventListener("mousemove", (event) => {
    const [i, j] = point(event);
    if (i === hover && j === hoverKey) return;
    [hover, hoverKey] = [i, j];
    refresh();
  });
  picture.addEventListener("mouseleave", () => { hover = hoverKey = -1; refresh(); });
  picture.addEventListener("click", (event) => {
    const [i] = point(event);
    if (i >= 0) save(model, { token: i === model.get("token") ? -1 : i });
  });
  const turn = (name, count, change) => save(model, { [name]: (model.get(name) + change + model.get(count)) % model.get(count) });
  const moves = {
    ArrowDown: () => save(model, { token: (model.get("token") + 1) % tokens().length }),
    ArrowUp: () => save(model, { token: (Math.max(model.get("token"), 0) + tokens().length - 1) % tokens().length }),
    Home: () => save(model, { token: 0 }), End: () => save(model, { token: tokens().length - 1 }),
    Escape: () => save(model, { token: -1 }),
    ArrowLeft: () => turn("head", "n_heads", -1), ArrowRight: () => turn("head", "n_heads", 1),
    PageUp: () => turn("layer", "n_layers", -1), PageDown: () => turn("layer", "n_layers", 1),
    v: () => save(model, { view: model.get("view") === "lines" ? "matrix" : "lines" }),
  };
  picture.addEventListener("keydown", (event) => {
    const move = moves[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    hover = hoverKey = -1;
    move();
  });
  thumbs.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: ["head", "n_heads", -1], ArrowRight: ["head", "n_heads", 1],
                   ArrowUp: ["layer", "n_layers", -1], ArrowDown: ["layer", "n_layers", 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    turn(...step);
    markThumb(true);
  });

  const stops = [
    listen(model, ["version"], arrived),
    listen(model, ["layer", "head", "view"], () => { if (!waiting) draw(); }),
    listen(model, ["token"], refresh),
    listen(model, ["text"], () => { if (document.activeElement !== input) input.value = model.get("text"); }),
  ];
  const theme = new MutationObserver(() => drawThumbs());   // 换成深色主题时，缩略图的颜色要跟着换
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
  arrived();
  requestAnimationFrame(drawThumbs);   // 放进页面之后才读得到主题颜色
  return () => { clearTimeout(timer); theme.disconnect(); stops.forEach((stop) => stop()); };
}
export default { render };
