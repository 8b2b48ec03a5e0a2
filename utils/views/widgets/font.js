// 只带字体、不画东西的小部件：给同一个 course-font 里的其他小部件用
function render({ model, el }) {
  el.style.display = "none";
  let stop = () => {};
  requestAnimationFrame(() => { stop = followFont(el.closest(".course-font") ?? document.body, model); });
  return () => stop();
}
export default { render };
