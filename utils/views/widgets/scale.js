// 颜色标尺：权重 → 颜色，全部图形共用一把尺。亮度只朝一个方向变，所以色盲、黑白打印都分得清。
const LEGEND_TICKS = [0, 0.05, 0.2, 0.5, 1];
const DEFAULT_STOPS = { "--hz-bg": "#ffffff", "--hz-mid": "#4a9fd1", "--hz-high": "#003a6b" };

// 读主题里的颜色：什么写法都行（名字、十六进制、rgb），画一个像素再读出来
function themeColor(root, name) {
  const context = html("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = DEFAULT_STOPS[name];
  context.fillStyle = getComputedStyle(root).getPropertyValue(name).trim();   // 还没放进页面时是空的，不起作用
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data.slice(0, 3);
}
const mixColor = (a, b, t) => [0, 1, 2].map((c) => Math.round(a[c] + (b[c] - a[c]) * t));
const luminance = ([r, g, b]) => [[r, 0.2126], [g, 0.7152], [b, 0.0722]]
  .reduce((sum, [value, part]) => sum + part * (value / 255) ** 2.2, 0);

// 256 级：pixels 给画布用，css 给 SVG 用，onDark[级] 表示上面的字该用浅色
function makeScale(root) {
  const [low, mid, high] = Object.keys(DEFAULT_STOPS).map((name) => themeColor(root, name));
  const colors = Array.from({ length: 256 }, (_, level) => {
    const t = opacity(level / 255);
    return t < 0.5 ? mixColor(low, mid, 2 * t) : mixColor(mid, high, 2 * t - 1);
  });
  const pixels = new Uint8ClampedArray(256 * 4);
  colors.forEach((color, level) => pixels.set([...color, 255], 4 * level));
  return {
    pixels: new Uint32Array(pixels.buffer),
    css: colors.map((color) => `rgb(${color.join(",")})`),
    onDark: colors.map((color) => luminance(color) < 0.3),
  };
}

// 把一个头的权重画到 T × T 的画布上，一格一个像素
function paintHead(canvas, weights, T, scale) {
  canvas.width = canvas.height = T;
  const context = canvas.getContext("2d"), image = context.createImageData(T, T);
  const target = new Uint32Array(image.data.buffer);
  for (let n = 0; n < target.length; n++) target[n] = scale.pixels[weights[n]];
  context.putImageData(image, 0, 0);
}

// 图例：一条渐变色带和它的刻度（横向按平方根排，和颜色一致）
function makeLegend() {
  const strip = html("canvas", { width: 128, height: 1, class: "hz-strip" });
  const ticks = LEGEND_TICKS.map((value) => {
    const tick = html("span", {}, value);
    tick.style.left = `${100 * opacity(value)}%`;
    return tick;
  });
  const label = "颜色与权重：从 0 到 1，权重越大，颜色离背景越远";
  const node = html("div", { class: "hz-legend", role: "img", "aria-label": label },
    html("span", {}, "权重"), html("div", { class: "hz-ruler" }, strip, html("div", { class: "hz-ticks" }, ...ticks)));
  const paint = (scale) => {
    const context = strip.getContext("2d");
    for (let x = 0; x < strip.width; x++) {
      context.fillStyle = scale.css[Math.round(255 * (x / (strip.width - 1)) ** 2)];
      context.fillRect(x, 0, 1, 1);
    }
  };
  return { node, paint };
}
