"""语料：虚构地方新闻的语法（每篇的概率精确可知），文中的事实和它们的写法。"""

from utils.corpus.facts import PROPER, FactReport, check_facts
from utils.corpus.grammar import Grammar
from utils.corpus.news import floor, generate, held_out, load_corpus, news_grammar
from utils.corpus.next_character import END, Ahead
from utils.corpus.numerals import make_pairs

__all__ = [
    "Ahead", "END", "FactReport", "Grammar", "PROPER", "check_facts", "floor", "generate", "held_out",
    "load_corpus", "make_pairs", "news_grammar",
]
