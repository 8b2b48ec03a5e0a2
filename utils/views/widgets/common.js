// 各个小部件共用的零件。页面上的每一个字都经由 textContent 写入，从不拼接 HTML。
const SVG_NS = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  for (const child of children) node.append(child instanceof Node ? child : String(child));
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG_NS, tag), attributes, children);

// 一个字的大致宽度：汉字与全角符号占一格，其余约占半格
function textWidth(text, size) {
  let cells = 0;
  for (const char of text) cells += char.codePointAt(0) >= 0x2e80 ? 1 : 0.62;
  return cells * size;
}
const shorten = (token, limit = 8) => ([...token].length > limit ? [...token].slice(0, limit - 1).join("") + "…" : token);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const opacity = (weight) => Math.sqrt(clamp(weight, 0, 1));   // 人眼对淡色不敏感，开方后小权重也看得见

// 小部件里的按键不该再触发 JupyterLab 与 Notebook 7 的快捷键（方向键会跳到别的单元格）。
// Notebook 7 抢在小部件之前看按键，而且先认得到焦点的那个元素，所以记号要打在它身上。
function ownKeys(root) {
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  root.addEventListener("keydown", (event) => { if (!event.ctrlKey && !event.metaKey && !event.shiftKey) event.stopPropagation(); });
}

// 监听模型的变化，返回一个用来解除监听的函数
function listen(model, names, callback) {
  for (const name of names) model.on(`change:${name}`, callback);
  return () => names.forEach((name) => model.off(`change:${name}`, callback));
}
function save(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}
let nextId = 0;
const newId = (prefix) => `${prefix}-${Date.now().toString(36)}-${nextId++}`;

// 中文字体：CSS 由 Python 的 utils.display.web_fonts.font_face 给出，系统里没有的字才用得上。返回撤掉它的函数。
// 不写进 <style>，而把字体的字节直接交给浏览器：那样不用等，马上就能用。
function addFont(css) {
  const [, data, range] = css.match(/base64,([^)]*)\).*unicode-range:([^}]*)/) ?? [];
  if (!data) return () => {};
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const face = new FontFace(css.match(/font-family:([^;]*)/)[1], bytes, { unicodeRange: range });
  document.fonts.add(face);
  return () => document.fonts.delete(face);
}
// Chromium 记得每个词上次用的是哪个字形，画成过方框的字，来了字体也还是方框；换一个不存在的字体特性，它才会重新找
function reshape(root) {
  const next = window.courseFontVersion = (window.courseFontVersion ?? 0) + 1;
  root.style.fontFeatureSettings = `"h${(next % 46656).toString(36).padStart(3, "0")}" 1`;
}
function followFont(root, model) {   // 属性 font 变了，字体跟着换；返回撤掉字体的函数
  let remove = () => {};
  const update = () => {
    const old = remove;
    remove = addFont(model.get("font"));
    old();
    reshape(root);
  };
  update();
  const stop = listen(model, ["font"], update);
  return () => { stop(); remove(); };
}
