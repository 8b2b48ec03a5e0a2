// 写作台：问一个字、画一个字。字和候选都由 Python 送来；这里只画，从不拼接 HTML。
const PACE = 15;          // 两个字之间至少隔几毫秒：太快看不清
const END = "[SEP]";
const percent = (x) => (x >= 0.9995 ? "100%" : `${(100 * x).toFixed(x < 0.0995 ? 1 : 0)}%`);

// 一个滑块：名字、当前的值、读给读屏软件的说法
function makeSlider(model, name, text, { min, max, step, say = String }) {
  const input = html("input", { type: "range", class: "hz-range", min, max, step, "data-name": name, "aria-label": text });
  const value = html("output", { class: "hz-value" });
  const tell = () => {
    value.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", value.textContent);
  };
  input.addEventListener("input", tell);
  input.addEventListener("change", () => save(model, { [name]: Number(input.value) }));
  const follow = () => {
    input.min = Math.min(min, model.get(name));
    input.max = Math.max(max, model.get(name));
    input.value = model.get(name);
    tell();
  };
  follow();
  return { name, node: html("label", { class: "hz-slider" }, html("span", {}, text), input, value), follow, read: () => Number(input.value) };
}

function render({ model, el }) {
  const root = html("div", { class: "hz hz-studio", role: "group", lang: "zh-CN", "aria-label": "写作台" });
  el.append(root);
  ownKeys(root);
  const fonts = [];   // 随消息来的一份份字体，各管各的字
  let state = { run: 0, running: false, finished: false, error: "", intro: "", body: [], part: "intro", steps: [], marks: [], verdict: "" };
  let at = -1, asked = 0, waiting = 0, checking = 0, following = true;   // at：正在看哪一步；following：跟着最新的字走

  // ---------- 零件 ----------
  const prompt = html("textarea", { class: "hz-input hz-prompt", rows: 3, spellcheck: "false", dir: "auto", "aria-label": "开头：换行之前是导语，换行之后是正文" });
  const fixed = (digits) => (x) => x.toFixed(digits);
  const sliders = [
    makeSlider(model, "temperature", "温度", { min: 0, max: 2, step: 0.1, say: (x) => (x === 0 ? "0（贪心）" : x.toFixed(1)) }),
    makeSlider(model, "top_k", "top-k", { min: 0, max: 50, step: 1, say: (x) => (x === 0 ? "不限" : String(x)) }),
    makeSlider(model, "top_p", "top-p", { min: 0.05, max: 1, step: 0.05, say: fixed(2) }),
    makeSlider(model, "length", "最多几个字", { min: 5, max: 240, step: 5 }),
    makeSlider(model, "seed", "种子", { min: 0, max: 99, step: 1 }),
  ];
  const button = (text, action, attributes) => {
    const made = html("button", { type: "button", class: "hz-button", ...attributes }, text);
    made.addEventListener("click", action);
    return made;
  };
  const write = button("写", () => start(), { class: "hz-button hz-primary", "data-do": "write" });
  const stop = button("停", () => toggle(), { "data-do": "stop" });
  const busy = html("span", { class: "hz-busy", "aria-hidden": "true" });
  const error = html("div", { class: "hz-error", role: "alert" });
  const note = html("div", { class: "hz-note", role: "status" });   // 开头里哪些字不在词表里
  const article = html("div", { class: "hz-article", tabindex: 0, role: "application", "aria-roledescription": "可用方向键操作的文章" });
  const verdict = html("div", { class: "hz-verdict" });
  const legend = html("div", { class: "hz-caption" }, html("span", { class: "hz-kept" }, "守住的事实"), html("span", { class: "hz-sign" }, "✓"), "　",
    html("span", { class: "hz-wrong" }, "写错的事实"), html("span", { class: "hz-sign" }, "✗"), "　底色越深，模型当时越拿不准　虚线框是你选的字");
  const heading = html("div", { class: "hz-title" });
  const list = html("div", { class: "hz-candidates", role: "group" });
  const spoken = html("div", { class: "hz-sr hz-live", role: "status", "aria-live": "polite" });   // 逐字写的时候不念，写完、选字时才念
  const hint = html("div", { class: "hz-hint" });
  for (const [key, text] of [["← →", "在文章上选一个字"], ["↓", "进入它的候选"], ["↑ ↓", "换候选"], ["回车", "从这里改写"], ["Esc", "停"]]) hint.append(html("kbd", {}, key), ` ${text}  `);
  root.append(html("label", { class: "hz-opening" }, html("span", {}, "开头"), prompt), html("div", { class: "hz-row" }, ...sliders.map((s) => s.node), write, stop, busy), error, note,
    html("div", { class: "hz-desk" }, html("div", { class: "hz-left" }, article, verdict, legend), html("div", { class: "hz-right" }, heading, list)), hint, spoken);
  prompt.value = model.get("prefix");

  // ---------- 与 Python 说话 ----------
  const send = (content) => {
    model.send({ run: state.run, ...content });
    clearTimeout(waiting);
    busy.textContent = "";
    waiting = setTimeout(() => { busy.textContent = "内核正忙，或已经停止"; }, 10000);
  };
  const typed = () => prompt.value.replace(/\p{Cs}/gu, "\uFFFD");   // 半个字符送不到内核
  function check() {   // 停手片刻，就问开头里有没有不认识的字
    clearTimeout(checking);
    checking = setTimeout(() => send({ do: "check", prefix: typed() }), 300);
  }
  function start() {
    clearTimeout(checking);   // 写的时候也会说
    following = true;
    spoken.textContent = "开始写";
    error.textContent = "";
    const settings = Object.fromEntries(sliders.map((slider) => [slider.name, slider.read()]));
    send({ do: "write", prefix: typed(), ...settings });
  }
  function toggle() {
    if (state.running) send({ do: "stop" });
    else { following = true; send({ do: "resume" }); }
  }
  function branch(token, name) {
    following = true;
    spoken.textContent = `第 ${at + 1} 个字改成「${name}」，从这里往下写`;
    article.focus({ preventScroll: true });
    send({ do: "branch", at, token });
  }
  function ask() {   // 问下一个字
    clearTimeout(asked);
    if (state.running) asked = setTimeout(() => { if (state.running) send({ do: "next", at: state.steps.length }); }, PACE);
  }
  function heard(message) {
    clearTimeout(waiting);
    busy.textContent = "";
    if (message.font) {
      fonts.push(addFont(message.font));
      reshape(root);
    }
    if (message.note !== undefined) note.textContent = message.note;
    if (message.kind === "state") {
      state = message;
      if (following || at >= state.steps.length) at = state.steps.length - 1;
      drawAll();
      if (!state.running && state.steps.length) tellEnd();
      if (state.error) spoken.textContent = "";
    } else if (message.kind === "step" && message.run === state.run && message.at === state.steps.length) {
      state.steps.push(message);
      addStep(message, state.steps.length - 1);
      if (following) look(state.steps.length - 1);
    } else return;
    ask();
  }

  // ---------- 画文章 ----------
  let parts = {};
  function paragraph(label) {
    const text = html("span", { class: "hz-text", dir: "auto" });
    const line = html("p", { class: "hz-paragraph" }, html("b", { class: "hz-part" }, label), text);
    article.append(line);
    return text;
  }
  function charNode(step, n) {
    const node = html("span", { class: "hz-char" + (step.text === END ? " hz-end" : "") + (step.picked ? " hz-mine" : ""), "data-step": n }, step.name);
    const best = step.candidates[0] ? step.candidates[0][1] : 1;
    node.style.setProperty("--hz-doubt", (0.4 * (1 - best)).toFixed(3));
    return node;
  }
  function bodyPart() {
    parts.body ??= paragraph("正文");
    return parts.body;
  }
  function addStep(step, n) {
    (step.part === "body" ? bodyPart() : parts.intro).append(charNode(step, n));
  }
  function drawAll() {
    article.replaceChildren();
    parts = { intro: paragraph("导语") };
    parts.intro.append(html("span", { class: "hz-given" }, state.intro));
    if (state.part === "body") bodyPart();
    // 正文的每个字占几个位置：事实的起止按字数算，给定的开头一格算一个字
    const cells = [];
    if (parts.body) state.body.forEach((char) => cells.push([html("span", { class: "hz-given" }, char), 1]));
    state.steps.forEach((step, n) => {
      if (step.part !== "body") parts.intro.append(charNode(step, n));
      else { bodyPart(); cells.push([charNode(step, n), step.text === END ? 0 : [...step.text].length]); }
    });
    let place = 0;
    const marks = [...state.marks];
    let open = null;
    for (const [node, size] of cells) {
      if (!open && marks.length && place >= marks[0][0] && size) {
        const [, end, expected] = marks.shift();
        open = { end, expected, node: html("span", { class: expected === null ? "hz-kept" : "hz-wrong" }) };
        parts.body.append(open.node);
      }
      (open ? open.node : parts.body).append(node);
      place += size;
      if (open && place >= open.end) {
        parts.body.append(html("span", { class: "hz-sign" }, open.expected === null ? "✓" : "✗"),
          ...(open.expected === null ? [] : [html("small", { class: "hz-should" }, `（应为 ${open.expected}）`)]));
        open = null;
      }
    }
    verdict.textContent = state.run ? state.verdict : "按「写」，看它一个字一个字地往下写。";
    error.textContent = state.error;
    legend.hidden = !state.steps.length;
    write.textContent = state.steps.length ? "重写" : "写";
    stop.textContent = state.running || !state.steps.length ? "停" : "接着写";
    stop.disabled = !state.running && (!state.steps.length || state.finished);
    article.setAttribute("aria-busy", state.running);
    article.setAttribute("aria-label", plain() || "还没有写");
    look(at);
  }
  const plain = () => state.intro + state.steps.filter((s) => s.part === "intro").map((s) => (s.text === END ? "。正文：" : s.name)).join("")
    + (state.part === "body" ? "。正文：" + state.body.join("") : "") + state.steps.filter((s) => s.part === "body").map((s) => (s.text === END ? "" : s.name)).join("");
  function tellEnd() {
    const wrong = state.marks.filter(([, , expected]) => expected !== null).map(([, , expected]) => `应为 ${expected}`);
    spoken.textContent = `${state.finished ? "写完了" : "停下了"}，一共 ${state.steps.length} 步。${state.verdict}${wrong.join("，")}`;
  }

  // ---------- 画候选 ----------
  function look(n) {
    at = n;
    for (const old of article.querySelectorAll(".hz-now")) old.classList.remove("hz-now");
    const step = state.steps[n];
    if (!step) {
      heading.textContent = "候选";
      list.replaceChildren(html("div", { class: "hz-caption" }, "写起来以后，这里是每一步的候选。"));
      return;
    }
    article.querySelector(`[data-step="${n}"]`)?.classList.add("hz-now");
    heading.textContent = `第 ${n + 1} 步的候选`;
    list.setAttribute("aria-label", heading.textContent);
    list.replaceChildren(...step.candidates.map(([token, p, chance, name]) => {
      const mine = token === step.text;
      const row = html("button", { type: "button", class: "hz-candidate" + (mine ? " hz-written" : ""), "data-token": token,
        "aria-label": `「${name}」：模型的概率 ${percent(p)}，抽中的机会 ${percent(chance)}${mine ? "，写下的字" : ""}。按回车从这里改写` },
      html("span", { class: "hz-name" }, name), html("span", { class: "hz-track" }, html("span", { class: "hz-fill" }), html("span", { class: "hz-chance" })),
      html("span", { class: "hz-numbers" }, percent(p), html("small", {}, ` 抽中 ${percent(chance)}`)), html("span", { class: "hz-tick" }, mine ? "◀ 写下" : ""));
      row.querySelector(".hz-fill").style.width = `${100 * p}%`;
      row.querySelector(".hz-chance").style.left = `${100 * chance}%`;
      row.addEventListener("click", () => branch(token, name));
      return row;
    }));
  }
  function choose(n) {
    if (!state.steps.length) return;
    following = false;
    look(clamp(n, 0, state.steps.length - 1));
    const step = state.steps[at];
    spoken.textContent = `第 ${at + 1} 步「${step.name}」。候选：` + step.candidates.slice(0, 5).map(([, p, , name]) => `${name} ${percent(p)}`).join("，");
  }

  // ---------- 鼠标与键盘 ----------
  article.addEventListener("click", (event) => {
    const char = event.target.closest(".hz-char");
    if (char) choose(Number(char.dataset.step));
  });
  const moves = { ArrowLeft: () => choose(at - 1), ArrowRight: () => choose(at + 1), Home: () => choose(0), End: () => choose(state.steps.length - 1),
    ArrowDown: () => { following = false; list.querySelector("button")?.focus(); }, Enter: () => list.querySelector("button")?.focus() };
  article.addEventListener("keydown", (event) => {
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });
  list.addEventListener("keydown", (event) => {
    const all = [...list.querySelectorAll("button")], n = all.indexOf(document.activeElement);
    const next = { ArrowDown: n + 1, ArrowUp: n - 1, Home: 0, End: all.length - 1 }[event.key];
    if (next === undefined || n < 0) return;
    event.preventDefault();
    if (next < 0) article.focus();
    else all[Math.min(next, all.length - 1)].focus();
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (state.running) send({ do: "stop" });
    else if (list.contains(document.activeElement)) article.focus();
  });

  prompt.addEventListener("input", (event) => { if (!event.isComposing) check(); });   // 输入法还没上屏的拼音不问
  prompt.addEventListener("compositionend", check);
  const newPrefix = () => {
    if (document.activeElement === prompt || prompt.value === model.get("prefix")) return;
    prompt.value = model.get("prefix");
    check();
  };

  model.on("msg:custom", heard);
  const unfollow = [...sliders.map((slider) => listen(model, [slider.name], slider.follow)),
    listen(model, ["prefix"], newPrefix)];
  drawAll();
  send({ do: "hello" });
  return () => {
    clearTimeout(asked);
    clearTimeout(waiting);
    clearTimeout(checking);
    model.off("msg:custom", heard);
    [...unfollow, ...fonts].forEach((off) => off());
  };
}
export default { render };
