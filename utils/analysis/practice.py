"""照抄的练习题：一篇文档里，哪些字是定了的、哪些还有得选、要抄的字在前文的哪里；以及挑哪些文档来练。

每个位置的标准答案是下一个字的真分布（utils/corpus/next_character.py），不只是文中那一个字。tools/checkpoints/copy_layer.py 用。
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from utils.corpus.grammar import Derivation, Grammar
from utils.corpus.news import held_out
from utils.corpus.next_character import END, Ahead
from utils.training.batches import LENGTHS

RARE = 1e-4                                               # 真分布里比它还小的概率不计
HARD = 0.25                                               # 一处平均丢的奈特数超过它，才值得专门练
CAP = 3.0                                                 # 一处最多按丢这么多奈特算，免得全练最难的几处
EACH = 2                                                  # 一个模式里最多专练几处
TRIES = 8                                                 # 抽几次还抽不到写了那个事实的文档，就换一处
TEXT = 0.35                                               # 套话的位置，平常随机取这么大一份来练，损失按比例放大
PROMPT = 6                                                # 每六篇取一篇，让它的导语与出发时写得一样
MEMORY = 0.9                                              # 一处丢的奈特数按滑动平均记，旧的占多少

Place = tuple[str, str | None]                            # （模式，事实）；None 表示哪个事实都行


@dataclass(frozen=True)
class Exercise:
    """一篇文档的练习题。位置从 [CLS] 数起，位置 t 上看得见 0 … t，要猜的是第 t + 1 个词元。

    属性：
        schema: 模式的名字。
        ids: [CLS] 导语 [SEP] 正文 [SEP]，长 T；正文是模型写的，就写到它写错之前，没有末尾的 [SEP]。
        prompt: 位置 0 … prompt − 1 猜的是导语（最后一个猜它后面的 [SEP]），其余猜正文。
        certain: [（位置，词元，在抄的事实；套话是 None）]，只有一种写法的地方。
        open: [（位置，词元，概率）]，还有得选的地方，各种写法都列出。
        sources: [（位置，[前文里同样的字所在的位置]）]，要抄的字在前文出现过的地方。
    """

    schema: str
    ids: list[int]
    prompt: int
    certain: list[tuple[int, int, str | None]]
    open: list[tuple[int, int, float]]
    sources: list[tuple[int, list[int]]]


def exercise(grammar: Grammar, document: Derivation, vocabulary: dict[str, int], own: str | None = None) -> Exercise:
    """由一篇文档出题。

    参数：
        grammar: 语法。
        document: grammar.sample 的结果。
        vocabulary: 字符级分词器的词表，即 tokenizer.get_vocab()。
        own: 不用文档的正文，用模型读了它的导语自己写的这一篇：一直考到它写错、再也走不下去的那个字。
    """
    intro, body = document.texts["intro"], document.texts["body"] if own is None else own
    end, unknown = vocabulary["[SEP]"], vocabulary["[UNK]"]

    def number(character: str) -> int:
        return end if character == END else vocabulary.get(character, unknown)

    known, prompt = {name: document.values[name] for name in document.seen["intro"]}, len(intro) + 1
    ahead = Ahead(grammar, document.schema, known, body, whole=own is None)
    probabilities, certain, choices = ahead.probabilities(), [], []
    body = body[:len(probabilities) - 1]
    ids = [vocabulary["[CLS]"], *map(number, intro), end, *map(number, body), *[end][:own is None]]
    for i, options in enumerate(probabilities, prompt):                  # 看到位置 i，猜正文的第 i − prompt 个字
        if len(options) == 1:
            certain.append((i, number(*options), ahead.copied[i - prompt]))
        else:                                                            # 空的（怎么写都重名）什么也不加
            choices += [(i, number(character), p) for character, p in options.items() if p > RARE]
    if len(probabilities[-1]) == 1:
        body += next(iter(probabilities[-1]))                            # 写错的地方本来只有一种写法：那个字也找出处
    return Exercise(document.schema.name, ids, prompt, certain, choices,
                    list(_sources(intro, body, ahead.copied, {i for i, *_ in certain})))


def _sources(intro: str, body: str, copied: list[str | None], certain: set[int]) -> Iterator[tuple[int, list[int]]]:
    """正文里连着抄的每一串字，在前文里找同样的一串；单独一个字出现太多处，说不准是抄哪一个，不算。"""
    text, prompt, k = intro + "\n" + body, len(intro) + 1, 0
    while k < len(body):
        end = k + 1
        while end < len(body) and copied[end] == copied[k]:
            end += 1
        if copied[k] is not None:
            run = body[k:end]
            found = [x for x in range(prompt + k) if text.startswith(run, x)]
            if found and (len(run) > 1 or len(found) <= 2):
                yield from ((prompt + k + j, [x + j + 1 for x in found]) for j in range(len(run)) if prompt + k + j in certain)
        k = end


@dataclass
class Focus:
    """哪几处写得最糟。

    属性：
        nats: {处：有它的文档里，它平均丢多少奈特}。
        share: {处：自然的文档里，有多大一份有它}。
    """

    nats: dict[Place, float] = field(default_factory=dict)
    share: dict[Place, float] = field(default_factory=dict)

    def measure(self, results: list[dict[Place, float]]) -> None:
        """从头量起：results 是一批自然的文档，各篇里各处丢的奈特数。"""
        count, total = Counter(), Counter()
        for result in results:
            count.update(result.keys())
            total.update(result)
        self.nats = {place: total[place] / n for place, n in count.items()}
        self.share = {place: n / len(results) for place, n in count.items()}

    def update(self, results: list[dict[Place, float]]) -> None:
        """练过一批以后，按新的结果改 nats。"""
        for result in results:
            for place, nats in result.items():
                self.nats[place] = MEMORY * self.nats.get(place, nats) + (1 - MEMORY) * nats

    def costliest(self, grammar: Grammar, n_schemas: int, derived: bool = False) -> list[Place]:
        """丢得最多（常见程度 × 丢的奈特数）的 n_schemas 个模式里，最糟的几处；推算出来的数不是抄的，derived 是 True 才专门练。"""
        schemas, places = {schema.name: schema for schema in grammar.schemas}, {}
        for place in sorted(self.nats, key=self._cost, reverse=True):
            schema, name = place
            if self.nats[place] > HARD and (derived or schemas[schema].variables[name].kind != "derived"):
                places.setdefault(schema, []).append(place)
        worst = sorted(places, key=lambda schema: sum(map(self._cost, places[schema])), reverse=True)[:n_schemas]
        return [place for schema in worst for place in places[schema][:EACH]]

    def _cost(self, place: Place) -> float:
        return self.share.get(place, 0.0) * min(self.nats[place], CAP)


def documents(grammar: Grammar, rng: Random, max_len: int, places: list[Place] = ()) -> Iterator[Derivation]:
    """一篇一篇地抽文档，没有尽头：放得进 max_len 个词元，不与验证集、测试集相同。

    参数：
        grammar: 语法。
        rng: 随机数。
        max_len: 一篇最多多少词元，含三个特殊词元。
        places: 只要写了其中某一处的文档（随机挑一处）；空的表示不挑。
    """
    schemas, held = {schema.name: schema for schema in grammar.schemas}, held_out()
    while True:
        schema, name = rng.choice(places) if places else (None, None)
        for _ in range(TRIES):
            document = grammar.sample(rng, schema and schemas[schema])
            intro, body = document.texts["intro"], document.texts["body"]
            if (intro, body) not in held and len(intro) + len(body) + 3 <= max_len and (name is None or name in document.seen["body"]):
                yield document
                break


@dataclass(frozen=True)
class Batch:
    """一批练习题排成张量。

    属性：
        ids: (B, T)，补了 [PAD]。
        certain: (N, 2)，位置（B × T 拉平之后的下标）与词元；certain_weight: (N,)；owner: 长 N 的 [（第几篇，处或 None）]。
        open: (M, 2)，同样是位置与词元；open_p: (M,)，真分布里的概率。
        prompt: (K, 2)，要与出发时写得一样的（行，列）；只在前几行里。
        asks: (G, 2)，要照抄的（行，列）；sources: (G, T)，该看的列是 True。
    """

    ids: torch.Tensor
    certain: torch.Tensor
    certain_weight: torch.Tensor
    owner: list[tuple[int, Place | None]]
    open: torch.Tensor
    open_p: torch.Tensor
    prompt: torch.Tensor
    asks: torch.Tensor
    sources: torch.Tensor


def collate(exercises: Sequence[Exercise], pad: int, rng: Random, device: torch.device, text: float = TEXT) -> Batch:
    """把练习题排成一批。

    参数：
        exercises: B 篇的练习题。
        pad: [PAD] 的编号。
        rng: 随机数。
        device: 放在哪里。
        text: 套话的位置随机取多大一份，0 到 1；损失按比例放大。
    """
    width = -(-max(len(e.ids) for e in exercises) // LENGTHS) * LENGTHS
    certain, weight, owner, choices = [], [], [], []
    for b, e in enumerate(exercises):
        for at, token, fact in e.certain:
            if fact or rng.random() < text:
                certain.append((b * width + at, token))
                weight.append(1.0 if fact else 1 / text)
                owner.append((b, (e.schema, fact) if fact else None))
        choices += [(b * width + at, token, p) for at, token, p in e.open]
    asks = [(b, at, found) for b, e in enumerate(exercises) for at, found in e.sources]
    seen = torch.zeros(len(asks), width, dtype=torch.bool)
    for row, (_, _, found) in enumerate(asks):
        seen[row, found] = True

    def whole(rows: list, *shape: int) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=device).view(len(rows), *shape)

    return Batch(whole([e.ids + [pad] * (width - len(e.ids)) for e in exercises], width), whole(certain, 2),
                 torch.tensor(weight, device=device), owner, whole([c[:2] for c in choices], 2),
                 torch.tensor([c[2] for c in choices], device=device),
                 whole([(b, at) for b, e in enumerate(exercises[:-(-len(exercises) // PROMPT)]) for at in range(e.prompt)], 2),
                 whole([ask[:2] for ask in asks], 2), seen.to(device))


def by_place(exercises: Sequence[Exercise], batch: Batch, nats: torch.Tensor) -> list[dict[Place, float]]:
    """各篇里，各处一共丢多少奈特。nats: (N,)，tools.checkpoints.copy_layer 算出的第三项。"""
    results = [{} for _ in exercises]
    for (b, place), x in zip(batch.owner, nats.tolist(), strict=True):
        if place:
            results[b][place] = results[b].get(place, 0.0) + x
    return results
