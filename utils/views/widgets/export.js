// 把当前的头存成 PNG、SVG、CSV：全在浏览器里由数据生成，不经过网络。
const PRINTED = ["fill", "fill-opacity", "stroke", "stroke-width", "opacity", "font-size", "font-weight", "text-anchor", "dominant-baseline", "unicode-bidi"];
const xmlSafe = (text) => text.replace(/[\uFFFE\uFFFF\p{Cs}]/gu, "\uFFFD");   // XML 里不许有的字符

// 复制一张 SVG，把样式表里的样式写到每个元素身上，离开这个页面也是一样的颜色
function standalone(source) {
  const copy = source.cloneNode(true), from = [source, ...source.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, n) => {
    const style = getComputedStyle(from[n]);
    for (const name of PRINTED) if (node !== copy) node.setAttribute(name, style.getPropertyValue(name));
    node.removeAttribute("class");
    node.removeAttribute("style");
    if (node.tagName === "text") node.textContent = xmlSafe(node.textContent);
  });
  return copy;
}

// 各栏并排放进一张 SVG，上面写明是哪一层、哪一个头
function pictureSvg(root, panels, font) {
  const style = getComputedStyle(root), gap = 24, top = 40, ink = style.color;
  const outer = svg("svg", { "font-family": style.fontFamily });
  let x = gap, height = 0;
  for (const panel of panels) {
    const { svg: inner, cells } = panel.view(), copy = standalone(inner), title = xmlSafe(panel.source.full());
    if (cells) copy.prepend(...cells());
    copy.setAttribute("x", x);
    copy.setAttribute("y", top);
    outer.append(svg("text", { x, y: 26, "font-size": 16, "font-weight": 700, fill: ink }, title), copy);
    x += Math.max(Number(inner.getAttribute("width")), textWidth(title, 16)) + gap;
    height = Math.max(height, Number(inner.getAttribute("height")));
  }
  const width = Math.ceil(x), all = Math.ceil(height + top + gap / 2);
  fill(outer, { width, height: all, viewBox: `0 0 ${width} ${all}` }, []);
  // 字体也写进去：存下的图拿到没有中文字体的机器上，照样不出方框
  outer.prepend(svg("style", {}, font), svg("rect", { width, height: all, fill: style.backgroundColor }));
  return new XMLSerializer().serializeToString(outer);
}

async function svgToPng(text, zoom = 2) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = html("canvas", { width: zoom * image.width, height: zoom * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// 一行一个权重。词元若以 = + - @ 开头，前面加一个单引号：电子表格不会把它当成公式
function headCsv(panels) {
  const quote = (text) => `"${String(text).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const lines = ["图,层,头,查询位置,查询词元,键位置,键词元,权重"];
  for (const { source } of panels) {
    const { T, weights } = source.current(), names = source.tokens();
    weights.forEach((level, n) => {
      const i = Math.floor(n / T), j = n % T;
      lines.push([quote(source.name()), source.layer(), source.head(), i, quote(names[i]), j, quote(names[j]), (level / 255).toFixed(4)].join(","));
    });
  }
  return "\uFEFF" + lines.join("\r\n") + "\r\n";   // 开头的 BOM 让 Excel 认出这是 UTF-8
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
