"""词表、模式与语法：先用几行的小语法手算核对，再查真正的新闻语法有没有歧义、有没有写坏。"""

import math
import re
from collections import Counter, defaultdict
from datetime import date, timedelta
from itertools import product
from random import Random
from statistics import fmean, stdev

import pytest
from datasets import Dataset

from utils.corpus.grammar import Grammar, always_mentioned
from utils.corpus.lexicon import GrammarError, Lexicon
from utils.corpus.news import _row, floor, news_grammar
from utils.corpus.templates import PARTS, compile_text, evaluate
from utils.paths import DATA

FRUIT = r'''
@zipf 1
苹果 量=个      # 权重 1
葡萄 量=串      # 权重 1/2
枣 量=颗        # 权重 1/3
'''
TINY = r'''
@category 果园
== 甲 weight=3
x = fruit
y = fruit except x
n = int 2 6 2
m := n*2+1
mood = 3:开心|平静
intro: {x}[2:很|不]甜，有{n}{x.量}。
body: [{y}也好，|3:{x}更好，|]共{m}
  [|{mood}的{n}天]。
title: {x}
== 乙
t = int 1 2
intro: 天气[晴|3:雨]。
body: 气温{t}度。
title: 天气
'''


def write(folder, schema, **lexicons):
    for name, text in {"lexicon/" + k: v for k, v in lexicons.items()}.items():
        path = folder / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "schemas").mkdir(exist_ok=True)
    (folder / "schemas" / "tiny.txt").write_text(schema, encoding="utf-8")
    return Grammar(folder)


@pytest.fixture
def tiny(tmp_path):
    return write(tmp_path, TINY, fruit=FRUIT)


# ---- 词表
def test_lexicon_probabilities_by_hand(tiny):
    fruit = tiny.lexicons["fruit"]
    assert [fruit.probability[w] for w in ("苹果", "葡萄", "枣")] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert math.exp(fruit.log_p("葡萄", {"苹果"})) == pytest.approx(3 / 5)
    assert fruit.log_p("苹果", {"苹果"}) == -math.inf
    assert fruit.attributes["枣"] == {"量": "颗"}
    assert sorted(Lexicon("x", [("甲", 1, {}), ("甲乙", 1, {})]).at("丙甲乙", 1)) == ["甲", "甲乙"]


def test_lexicon_draws_match_the_probabilities(tiny):
    fruit, rng, n = tiny.lexicons["fruit"], Random(0), 6000
    for excluded in (set(), {"苹果"}, {"不在表里"}):
        draws = [fruit.draw(rng, excluded) for _ in range(n)]
        counts = Counter(word for word, _ in draws)
        assert set(counts) == set(fruit.words) - excluded
        for word, log_p in set(draws):
            p = math.exp(log_p)
            assert log_p == fruit.log_p(word, excluded)
            assert abs(counts[word] / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_date_lexicon_is_the_365_days(tiny):
    days = [date(2026, 1, 1) + timedelta(d) for d in range(365)]
    assert tiny.lexicons["date"].words == [f"{d.month}月{d.day}日" for d in days]
    assert set(tiny.lexicons["date"].probability.values()) == {1 / 365}


def test_compound_lexicon_multiplies(tmp_path):
    grammar = write(tmp_path, TINY, fruit=FRUIT, surname="@zipf 1\n李\n王", given="芳\n强", person="@compound {surname}{given}")
    person = grammar.lexicons["person"].probability
    assert person == pytest.approx({"李芳": 1 / 3, "李强": 1 / 3, "王芳": 1 / 6, "王强": 1 / 6})


def test_new_names_are_only_drawn_when_asked(tmp_path):
    fruit = FRUIT + "@new\n橙 量=只\n柚 量=只\n"
    grammar = write(tmp_path, TINY, fruit=fruit)
    table, renewed = grammar.lexicons["fruit"], Grammar(tmp_path, new_names=True).lexicons["fruit"]
    assert table.words == ["苹果", "葡萄", "枣"] and renewed.words == ["橙", "柚"]
    assert renewed.probability == pytest.approx({"橙": 2 / 3, "柚": 1 / 3}) and renewed.renewed().words == table.words
    assert table.log_p("橙", set()) == -math.inf and renewed.log_p("枣", set()) == -math.inf
    assert list(table.at("橙子", 0)) == ["橙"]                          # 读的时候两种都认得
    intro = "橙很甜\uff0c有2只\u3002"
    assert grammar.parse(intro) == [] and len(Grammar(tmp_path, new_names=True).parse(intro)) == 1


def test_new_names_of_a_compound(tmp_path):
    grammar = write(tmp_path, TINY, fruit=FRUIT, surname="@zipf 1\n李\n王", given="芳\n@new\n兰\n梅",
                    person="@type 人物\n@compound {surname}{given}")
    person = grammar.lexicons["person"]
    assert person.kind == "人物" and person.words == ["李芳", "王芳"] and not person.written
    assert person.renewed().probability == pytest.approx({"李兰": 1 / 3, "李梅": 1 / 3, "王兰": 1 / 6, "王梅": 1 / 6})


def test_lexicon_types(tmp_path):
    grammar = write(tmp_path, TINY, fruit="@type 作品\n" + FRUIT)
    schema = grammar.schemas[0]
    assert [grammar.kind_of(schema, name) for name in ("x", "n", "m", "mood")] == ["作品", "数量", "数量", "说法"]
    assert grammar.forms_of(schema, "n", "4") == ["4", "四"]


# ---- 生成与解析
def enumerate_nodes(grammar, schema, nodes, values):
    """另写一遍的穷举：一段语法树能写出的全部 （文字，变量的值，概率）。不借用 sample 和 parse。"""
    if not nodes:
        yield "", values, 1.0
        return
    node, options = nodes[0], []
    if node[0] == "text":
        options = [(node[1], values, 1.0)]
    elif node[0] == "choice":
        options = [(t, v, p * q) for p, _, branch in node[1]
                   for t, v, q in enumerate_nodes(grammar, schema, branch, values)]
    else:
        _, name, attribute = node
        variable = schema.variables[name]
        if name in values:
            drawn = [(values[name], 1.0)]
        elif variable.kind == "derived":
            drawn = [(str(evaluate(variable.spec, values)), 1.0)]
        elif variable.kind == "int":
            low, high, step = (evaluate(e, values) for e in variable.spec)
            numbers = [low + i * step for i in range((high - low) // step + 1)]
            drawn = [(str(k), 1 / len(numbers)) for k in numbers]
        else:
            table = (variable.spec if variable.kind == "pick" else grammar.lexicons[variable.spec]).probability
            left = {w: p for w, p in table.items() if w not in {values[v] for v in variable.excluded}}
            drawn = [(w, p / sum(left.values())) for w, p in left.items()]
        lexicon = grammar.lexicon_of(schema, name)
        options = [(lexicon.attributes[w][attribute] if attribute else w, values | {name: w}, p) for w, p in drawn]
    for text, filled, p in options:
        for tail, final, q in enumerate_nodes(grammar, schema, nodes[1:], filled):
            yield text + tail, final, p * q


def everything(grammar):
    table = defaultdict(float)
    for schema in grammar.schemas:
        for intro, values, p in enumerate_nodes(grammar, schema, schema.parts["intro"], {}):
            for body, _, q in enumerate_nodes(grammar, schema, schema.parts["body"], values):
                table[intro, body] += math.exp(schema.log_p) * p * q
    return table


def test_enumeration_sums_to_one_and_parse_agrees(tiny):
    table = everything(tiny)
    assert math.fsum(table.values()) == pytest.approx(1, abs=1e-12)
    for (intro, body), p in table.items():
        [(_, _, log_intro, log_body)] = tiny.parse(intro, body)          # 恰好一种推导
        assert math.exp(log_intro + log_body) == pytest.approx(p, rel=1e-9)


def test_a_known_document_has_its_probability_by_hand(tiny):
    comma, stop = "\uff0c", "\u3002"
    intro = f"苹果很甜{comma}有4个{stop}"
    body = f"葡萄也好{comma}共9开心的4天{stop}"
    [(schema, values, log_intro, log_body)] = tiny.parse(intro, body)
    assert (schema.name, values["y"], values["m"], values["mood"]) == ("甲", "葡萄", "9", "开心")
    assert math.exp(log_intro) == pytest.approx(3 / 4 * 6 / 11 * 2 / 3 * 1 / 3)
    assert math.exp(log_body) == pytest.approx(1 / 5 * 3 / 5 * 1 / 2 * 3 / 4)
    assert tiny.parse(intro, body.replace("9", "8")) == []               # 算错的数写不出来
    assert tiny.parse(intro, body.replace("葡萄", "苹果")) == []          # except：不许与 x 相同
    assert tiny.parse(intro + "还有") == [] and tiny.parse("") == []


def test_sampling_frequencies_and_entropy(tiny):
    table, n, rng = everything(tiny), 12000, Random(1)
    documents = [tiny.sample(rng) for _ in range(n)]
    counts = Counter((d.texts["intro"], d.texts["body"]) for d in documents)
    assert set(counts) <= set(table)
    for key, p in table.items():
        assert abs(counts[key] / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-9, key
    nats = [-d.log_p["intro"] - d.log_p["body"] for d in documents]
    entropy = -math.fsum(p * math.log(p) for p in table.values())
    assert abs(fmean(nats) - entropy) < 3 * stdev(nats) / math.sqrt(n)


def test_floor_agrees_with_the_entropy_of_a_grammar_enumerated_in_full(tiny):
    """下限的两种算法：一边抽样求平均（floor 的做法），一边把每一篇都列出来求 −Σ p ln p；总的、正文给定导语的，各比一次。"""
    table, rng, n = everything(tiny), Random(3), 8000
    intros = defaultdict(float)
    for (intro, _), p in table.items():
        intros[intro] += p
    whole = -math.fsum(p * math.log(p) for p in table.values())
    given = whole + math.fsum(p * math.log(p) for p in intros.values())               # H(正文 | 导语) = H(全文) − H(导语)
    chars = {part: math.fsum(p * len("".join(key[i:])) for key, p in table.items()) for part, i in (("all", 0), ("body", 1))}
    docs = Dataset.from_list([_row(str(i), tiny.sample(rng), tiny) for i in range(n)])
    for part, entropy in (("all", whole), ("body", given)):
        found = floor(docs, part)
        assert abs(found["nats_per_doc"] - entropy) < 1.5 * found["ci95_per_doc"]
        assert abs(found["bits_per_char"] - entropy / math.log(2) / chars[part]) < 1.5 * found["ci95_bits_per_char"]
        assert found["ci95_per_doc"] < 0.05 * entropy                                  # 区间够窄，这条测试才有分量


def test_choice_weights_and_branches():
    [(kind, branches)] = compile_text(r"[3:甲|乙|]", "此处")
    assert kind == "choice" and [p for p, _, _ in branches] == [0.6, 0.2, 0.2]
    assert [c for _, c, _ in branches] == pytest.approx([0.6, 0.8, 1.0])
    assert [nodes for _, _, nodes in branches] == [[("text", "甲")], [("text", "乙")], []]
    nested = compile_text(r"[2:{x}积水|3:[甲|乙]丙]", "此处")[0][1]        # 权重后面紧跟空或方括号
    assert [p for p, _, _ in nested] == [0.4, 0.6] and nested[0][2][0] == ("slot", "x", None)


def test_weights_choose_categories_and_schemas(tmp_path):
    other = r'''
@category 别的
@weight 3
== 丙
intro: 丙
body: 丙
title: 丙
'''
    write(tmp_path, TINY, fruit=FRUIT)
    (tmp_path / "schemas" / "other.txt").write_text(other, encoding="utf-8")
    shares = {s.name: math.exp(s.log_p) for s in Grammar(tmp_path).schemas}
    assert shares == pytest.approx({"甲": 3 / 16, "乙": 1 / 16, "丙": 3 / 4})


def test_zipf_orders_the_schemas_of_a_category(tmp_path):
    schemas = "@zipf 1\n" + "".join(f"== {name} weight=9\nintro: {name}\nbody: {name}\ntitle: {name}\n" for name in "甲乙丙")
    grammar = write(tmp_path, schemas, fruit=FRUIT)
    assert [math.exp(s.log_p) for s in grammar.schemas] == pytest.approx([6 / 11, 3 / 11, 2 / 11])       # 1、1/2、1/3，不看 weight
    with pytest.raises(GrammarError, match="tiny.txt 第 1 行：@zipf 后面要写一个正数"):
        write(tmp_path, schemas.replace("@zipf 1", "@zipf 零"), fruit=FRUIT)


def test_except_keeps_three_people_apart(tmp_path):
    schema = r'''
== 三种
a = fruit
b = fruit except a
c = fruit except a b
intro: {a}{b}{c}
body: {c}
title: {a}
'''
    grammar = write(tmp_path, schema, fruit=FRUIT)
    texts = {grammar.sample(Random(i)).texts["intro"] for i in range(200)}
    assert len(texts) == 6 and all(len(set(t)) == len(t) for t in texts)
    assert math.fsum(everything(grammar).values()) == pytest.approx(1)


def test_always_mentioned():
    assert always_mentioned(compile_text(r"{a}[{b}{c}|{b}][{d}|]", "此处")) == {"a", "b"}


@pytest.mark.parametrize("expression, value", [("a+2", 9), ("2*(a-3)", 8), ("a//2", 3)])
def test_evaluate(expression, value):
    assert evaluate(expression, {"a": "7"}) == value


@pytest.mark.parametrize("expression", ["a/2", "a**2", "abs(a)", "1.5", "__import__('os')"])
def test_evaluate_refuses_everything_else(expression):
    with pytest.raises(GrammarError, match="表达式只能用"):
        evaluate(expression, {"a": "7"})


# ---- 写错的文件
def schema_with(variables="", intro="{x}", body="好", title="好", name="出错的"):
    parts = [("intro", intro), ("body", body), ("title", title)]
    return "\n".join([f"== {name}", variables, *(f"{part}:{text}" for part, text in parts if text is not None)])


READ_ERRORS = {
    "方括号没有收口": (schema_with("x = fruit", r"{x}[甲|乙"), {}, ["tiny.txt", "出错的", "方括号"]),
    "方括号多了": (schema_with("x = fruit", r"{x}甲]"), {}, ["tiny.txt", "出错的", "多出了"]),
    "花括号不配对": (schema_with("x = fruit", r"{x}{甲"), {}, ["tiny.txt", "出错的", "花括号"]),
    "变量没有定义": (schema_with("x = fruit", r"{x}{who}"), {}, ["tiny.txt", "出错的", "没有定义的变量", "who"]),
    "没有这个词表": (schema_with("x = fruits"), {}, ["tiny.txt", "第 2 行", "fruits", "date、fruit"]),
    "缺一段": (schema_with("x = fruit", title=None), {}, ["tiny.txt", "出错的", "缺了 title"]),
    "看不懂的行": (schema_with("x fruit"), {}, ["tiny.txt", "第 2 行", "看不懂"]),
    "没有模式名": ("x = fruit", {}, ["tiny.txt", "第 1 行", "== 名字"]),
    "整数缺上界": (schema_with("x = int 3"), {}, ["tiny.txt", "第 2 行", "上界"]),
    "列出的项是空的": (schema_with(r"x = 甲||乙"), {}, ["tiny.txt", "第 2 行", "x 列出的项"]),
    "词表名后面不是 except": (schema_with("x = fruit not y"), {}, ["tiny.txt", "第 2 行", "except"]),
    "词表里重复的词": (schema_with("x = fruit"), {"fruit": "枣\n梨\n枣"}, ["fruit", "重复", "枣"]),
    "列出的项重复": (schema_with(r"x = 甲|甲"), {}, ["x", "重复", "甲"]),
    "空的词表": (schema_with("x = fruit"), {"fruit": "# 只有注释"}, ["fruit", "空的"]),
    "不认识的指令": (schema_with("x = fruit"), {"fruit": "@zip 3\n枣"}, ["fruit.txt", "@zip"]),
    "zipf 没有写数": (schema_with("x = fruit"), {"fruit": "@zipf\n枣"}, ["fruit.txt", "@zipf"]),
    "zipf 不是正数": (schema_with("x = fruit"), {"fruit": "@zipf 0\n枣"}, ["fruit.txt", "@zipf 0"]),
    "不认识的类型": (schema_with("x = fruit"), {"fruit": "@type 水果\n枣"}, ["fruit.txt", "@type", "人物"]),
    "新名字与旧的重复": (schema_with("x = fruit"), {"fruit": "枣\n@new\n枣"}, ["fruit", "重复", "枣"]),
    "属性没有等号": (schema_with("x = fruit"), {"fruit": "枣 颗"}, ["fruit.txt", "枣 颗"]),
    "拼的词表不存在": (schema_with("x = fruit"), {"person": "@compound {surname}"}, ["person.txt", "surname"]),
}


@pytest.mark.parametrize("case", READ_ERRORS)
def test_reading_errors_say_where(case, tmp_path):
    schema, lexicons, words = READ_ERRORS[case]
    with pytest.raises(GrammarError) as error:
        write(tmp_path, schema, **{"fruit": FRUIT} | lexicons)
    for word in words:
        assert word in str(error.value), str(error.value)


DRAW_ERRORS = {
    "依靠的变量还没出现": (
        schema_with("x = fruit\ny = fruit except x", r"{y}{x}"), ["出错的", "y", "'x'", "还没有在文中出现"]),
    "整数依靠的还没出现": (schema_with("a = int 1 9\nn = int a a+2", r"{n}{a}"), ["出错的", "n", "'a'"]),
    "没有这个属性": (schema_with("x = fruit", r"{x}{x.色}"), ["出错的", "x", "没有属性 色"]),
    "整数没有属性": (schema_with("n = int 1 3", r"{n}{n.量}"), ["出错的", "n", "没有属性 量"]),
    "整数范围是空的": (schema_with("n = int 5 3", r"{n}"), ["出错的", "n", "空的"]),
    "属性写在变量之前": (schema_with("x = fruit", r"一{x.量}{x}"), ["出错的", "x", "属性", "量"]),
}


@pytest.mark.parametrize("case", DRAW_ERRORS)
def test_drawing_errors_say_where(case, tmp_path):
    schema, words = DRAW_ERRORS[case]
    grammar = write(tmp_path, "@category 果园\n" + schema, fruit=FRUIT)
    with pytest.raises(GrammarError) as error:
        grammar.sample(Random(0))
    for word in ["果园", *words]:
        assert word in str(error.value), str(error.value)


def test_nothing_left_to_draw_is_an_error(tiny):
    with pytest.raises(GrammarError, match="fruit.*排除"):
        tiny.lexicons["fruit"].draw(Random(0), {"苹果", "葡萄", "枣"})


def test_example_in_the_data_card_works(tmp_path):
    card = (DATA / "README.md").read_text(encoding="utf-8")
    blocks = [block.lstrip() for block in card.split("```")[1::2]]
    [fruit] = [b for b in blocks if b.startswith("# 水果")]
    [schema] = [b for b in blocks if b.startswith("@category")]
    assert "@zipf 5" in fruit
    grammar = write(tmp_path, schema, fruit=fruit, city="甲市\n乙市", person="李芳\n王强")
    for i in range(50):
        d = grammar.sample(Random(i))
        [(_, _, log_intro, log_body)] = grammar.parse(d.texts["intro"], d.texts["body"])
        assert log_intro + log_body == pytest.approx(d.log_p["intro"] + d.log_p["body"])


# ---- 真正的新闻语法
SCHEMAS = [pytest.param(s, id=f"{s.category}-{s.name}") for s in news_grammar().schemas]


@pytest.fixture(scope="module", params=SCHEMAS)
def sampled(request):
    rng = Random(f"歧义/{request.param.category}/{request.param.name}")
    return request.param, [news_grammar().sample(rng, request.param) for _ in range(20)]


def test_schema_has_one_derivation_and_fits(sampled):
    schema, documents = sampled
    for d in documents:
        [(found, _, log_intro, _)] = news_grammar().parse(d.texts["intro"])               # 单看导语就没有歧义
        assert found is schema and log_intro == pytest.approx(d.log_p["intro"], abs=1e-9)
        [(found, values, log_intro, log_body)] = news_grammar().parse(d.texts["intro"], d.texts["body"])
        assert found is schema and values == {k: v for k, v in d.values.items() if k in values}
        assert log_intro + log_body == pytest.approx(d.log_p["intro"] + d.log_p["body"], abs=1e-9)
        assert len(d.texts["intro"]) + len(d.texts["body"]) + 3 <= 256                    # [CLS] 与两个 [SEP]
        assert len(d.texts["title"]) <= 30


def test_schema_is_written_with_full_width_punctuation(sampled):
    for d in sampled[1]:
        for part in PARTS:
            text = d.texts[part]
            assert not re.search(r"[,;?!()'\"\[\]{}|<>]", text), text                      # 也没有漏出来的模板记号
            assert not re.search(r"(?<!\d)[.:]|[.:](?!\d)", text), text                   # 只许出现在数字之间
            assert part == "title" or " " not in text, text
            for pair in product("\uff0c\u3002\uff1a\uff1b\u3001", repeat=2):
                assert "".join(pair) not in text, text                                    # 标点不连着写
            assert part == "title" or text[-1] in "\u3002\uff01\uff1f\u201d\uff09", text
            assert text.count("\u201c") == text.count("\u201d"), text


def test_schema_repeats_facts(sampled):
    schema, documents = sampled
    assert always_mentioned(schema.parts["body"]) & always_mentioned(schema.parts["intro"])
    assert all(d.seen["intro"] & d.seen["body"] for d in documents)
