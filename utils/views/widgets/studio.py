"""写作台：拉滑块、看模型一个字一个字地写，点一个候选就从那里改写，守住和写错的事实标出来。

首次使用：generation。全部在本机运行，不联网；网页上的每一个字都当作文本，不会变成 HTML。

写一个字是一问一答：网页问「下一个字」，Python 写一个，送回去，网页画好再问。所以随时停得下来，也不占着内核，
别的单元格照样能运行；网页关了，自然就不写了。
"""

from __future__ import annotations

import json

import anywidget
import traitlets as t

from utils.corpus.facts import check_facts
from utils.display.web_fonts import font_face
from utils.generation.writer import strange_characters
from utils.generation.writing import Step, encode_prompt, stream
from utils.tokenization.tokenizer import unknown_note
from utils.views.figures.fact_marks import fact_marks, verdict
from utils.views.widgets.parts import drawn, static

SEP = "[SEP]"
CANDIDATES = 8                                    # 每一步列出几个候选
SHOWN = 2000                                      # 开头太长时，网页上最多画几个字


def _named(token: str) -> str:
    """一个词元写在网页上的名字。"""
    return "完" if token == SEP else drawn(token)


class Studio(anywidget.AnyWidget):
    """写作台。在 notebook 里写在一格的最后一行就会显示。

    参数：model, tokenizer: 同 utils.generation.generate；prefix: 开头，换行之后算正文。
    属性：
        temperature（0 是贪心）、top_k（0 是不限）、top_p、length（最多写几个字）、seed: 滑块的值。
        steps: 写下的各步（Step）；text: 全文，导语与正文之间是换行；error: 出错的原因；running: 正在写。
        finished: 自己写到了结尾；note: 开头里哪些字不在词表里，边打字边写在网页上。
    键盘：Tab 换控件，方向键调滑块；在文章上，←→ 选字，↓ 进入候选，回车从这里改写，Esc 停。
    首次使用：generation。
    """

    _esm = static("common.js", "studio.js")
    _css = static("widgets.css", "studio.css")
    prefix = t.Unicode("").tag(sync=True)
    temperature = t.Float(0.8).tag(sync=True)
    top_k = t.Int(0).tag(sync=True)
    top_p = t.Float(0.95).tag(sync=True)
    length = t.Int(160).tag(sync=True)
    seed = t.Int(1).tag(sync=True)

    def __init__(self, model, tokenizer, prefix: str = "今天是个", **settings):
        self.model, self.tokenizer = model, tokenizer
        self.steps: list[Step] = []
        self.picked: set[int] = set()                                     # 哪几步是人选的
        self.error, self.running, self.finished = "", False, False
        self._begun, self._run, self._source = prefix, 0, None
        self._typed = prefix                                              # 网页的文本框里现在的字，还不一定写过
        self._lettered: set[str] = set()                                  # 网页已经有了哪些字的字体
        super().__init__(prefix=prefix, **settings)
        self._labels = set(str(self._esm))                                # 按钮、提示这些写在脚本里的字
        self.on_msg(self._heard)

    # ---- 写
    @property
    def text(self) -> str:
        """现在的全文。"""
        return self._upto(len(self.steps))

    @property
    def note(self) -> str:
        """文本框里哪些字不在词表里；都认识时是空串。"""
        intro, _, body = self._typed.encode("utf-8", "ignore").decode().partition("\n")   # 半个字符另有报错
        return drawn(unknown_note(self.tokenizer, *strange_characters(self.tokenizer, intro, body)))

    def begin(self) -> None:
        """从开头写起：备好，还没有写字。出错时 error 里有原因。"""
        self.steps, self.picked, self._begun = [], set(), self.prefix
        self._typed = self.prefix
        self._start()

    def advance(self) -> bool:
        """写一个字。返回：写了没有；没有就是写完了、停下了，或者出错了。"""
        if not self.running:
            return False
        try:
            step = next(self._source)
        except StopIteration:
            self.stop()
            return False
        except Exception as problem:                                      # 让人看见原因，否则网页上只是没有反应
            self._fail(problem)
            return False
        self.steps.append(step)
        self._tell(self._step_message(len(self.steps) - 1))
        if self._ended() or len(self.steps) >= self.length:
            self.stop()
        return True

    def run(self) -> str:
        """从开头一直写到停。返回全文。"""
        self.begin()
        while self.advance():
            pass
        return self.text

    def stop(self) -> None:
        """停下来，核对已经写下的事实。"""
        self.running, self.finished = False, self._ended()
        self._tell(self._state())

    def resume(self) -> None:
        """停下之后接着写。"""
        if self.steps and not self._ended():
            self._start(len(self.steps))

    def branch(self, at: int, token: str) -> None:
        """回到第 at 步（从 0 数起），改写成候选 token，备好往下写；随机数不变，选原来的字就得到原来的文章。

        异常：ValueError: 没有这一步，或者 token 不是那一步的候选。
        """
        if not 0 <= at < len(self.steps):
            raise ValueError(f"一共写了 {len(self.steps)} 步，没有第 {at} 步（从 0 数起）。")
        old = self.steps[at]
        chosen = next((c for c in old.candidates if c.text == token), None)
        if chosen is None:
            raise ValueError(f"「{token}」不在第 {at} 步的候选里：{'、'.join(c.text for c in old.candidates)}。")
        self.picked = {i for i in self.picked if i < at} | {at}
        self.steps[at:] = [Step(token, old.part, chosen.probability, chosen.chance, old.candidates)]
        if self._ended():
            self.error = ""
            self.stop()
        else:
            self._start(at + 1)

    # ---- 里面的事
    def _start(self, written: int = 0) -> None:
        self._run += 1
        self.error, self.running, self.finished = "", False, False
        if self._source is not None:
            self._source.close()
        try:
            self.text.encode()                                            # 半个字符（不成对的代理码）在这里就报错
            text, room = self.text, self.length - written
            intro, newline, body = text.partition("\n")
            size = len(encode_prompt(self.tokenizer, intro, body if newline else None))
            space = self.model.config.max_position_embeddings - size
            if written and min(room, space - 1) < 1:
                return self.stop()
            limit = min(room, space) if space > 1 else room               # 放不下时，让 stream 说清楚
            self._source = stream(self.model, self.tokenizer, text, max_new_tokens=limit, n_candidates=CANDIDATES,
                                  skip=written, **self._settings())
        except Exception as problem:
            return self._fail(problem)
        self.running = True
        self._tell(self._state())

    def _fail(self, problem: Exception) -> None:
        self.running = False
        if isinstance(problem, UnicodeError):
            self.error = "开头里有半个字符（不成对的代理码），不是合法的文字：请删掉它再试。"
        elif isinstance(problem, (ValueError, TypeError)):
            self.error = str(problem)
        else:
            self.error = f"写不下去（{type(problem).__name__}）：{problem}"
        self._tell(self._state())

    def _settings(self) -> dict:
        if self.temperature == 0:
            return {"strategy": "greedy"}
        return {"temperature": self.temperature, "top_k": self.top_k or None, "top_p": self.top_p, "seed": self.seed}

    def _ended(self) -> bool:
        return bool(self.steps) and self.steps[-1].text == SEP and self.steps[-1].part == "body"

    def _upto(self, n: int) -> str:
        text = self._begun
        for step in self.steps[:n]:
            text += step.text if step.text != SEP else "\n" if step.part == "intro" else ""
        return text

    # ---- 与网页说话
    def _tell(self, message: dict) -> None:
        """把消息送给网页；里面有第一次出现的字，就附上这些字的字体：没有中文字体的机器上也不出方框。"""
        fresh = (set(json.dumps(message, ensure_ascii=False)) | self._labels) - self._lettered
        self._lettered |= fresh
        self.send(message | {"font": font_face("".join(fresh))})

    def _heard(self, _, content: dict, __) -> None:
        """网页来的消息：do 是要做的事。run 与 at 对不上的是迟到的，不理。"""
        what = content.get("do")
        if what == "hello":                                               # 新开的一页什么字体也没有
            self._lettered = set()
            return self._tell(self._state())
        if what == "check":
            self._typed = content["prefix"]
            return self._tell({"kind": "note", "note": self.note})
        if what == "write":
            for name in ("prefix", "temperature", "top_k", "top_p", "length", "seed"):
                setattr(self, name, content[name])
            return self.begin()
        if content.get("run") != self._run:
            return None
        if what == "next" and content["at"] == len(self.steps):
            self.advance()
        elif what == "stop" and self.running:
            self.stop()
        elif what == "resume" and not self.running:
            self.resume()
        elif what == "branch":
            try:
                self.branch(content["at"], content["token"])
            except ValueError as problem:
                self._fail(problem)
        return None

    def _step_message(self, at: int) -> dict:
        step = self.steps[at]
        found = [[c.text, round(c.probability, 4), round(c.chance, 4), _named(c.text)] for c in step.candidates]
        return {"kind": "step", "run": self._run, "at": at, "text": step.text, "name": _named(step.text), "part": step.part,
                "picked": at in self.picked, "candidates": found}

    def _state(self) -> dict:
        intro, newline, body = self._begun.partition("\n")
        state = {"kind": "state", "run": self._run, "running": self.running, "finished": self.finished, "error": self.error,
                 "note": self.note, "intro": drawn(intro[:SHOWN]), "body": [drawn(c) for c in body[:SHOWN]],
                 "part": "body" if newline else "intro", "marks": [], "verdict": "",
                 "steps": [self._step_message(at) for at in range(len(self.steps))]}
        if not self.running and self.steps and not self.error:
            state |= self._facts()
        return state

    def _facts(self) -> dict:
        intro, newline, body = self.text.partition("\n")
        if not newline or not body:
            return {"verdict": "还没有写到正文，没有事实可核对。"}
        report = check_facts(intro, body)
        return {"marks": [[m.start, m.end, m.expected] for m in fact_marks(body, report)], "verdict": verdict(report)}
