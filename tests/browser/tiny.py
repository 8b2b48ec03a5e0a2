"""浏览器测试用的小 notebook：随机的小模型，不要任何检查点。"""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

SETUP = '''import sys; sys.path.insert(0, "..")
import torch
from transformers import BertConfig, BertForMaskedLM
from utils.analysis import Attentions
from utils.display import use_chinese_font
from utils.tokenization import build_tokenizer
from utils.views import show_attention, show_stepper
from utils.views.widgets.attention import AttentionWidget
use_chinese_font()
text = "昨天晚上，北京队以三比一战胜了上海队。"
tokenizer = build_tokenizer("char", [text + "今天是个好日子<>script/$"])
def tiny(seed, layers):
    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=layers, num_attention_heads=4,
                                      intermediate_size=96, max_position_embeddings=80, initializer_range=0.25)).eval()
model, other = tiny(0, 3), tiny(1, 2)'''
LARGE = '''torch.manual_seed(0)
large = Attentions([f"字{n}" for n in range(64)], torch.softmax(3 * torch.randn(12, 12, 64, 64), -1))
AttentionWidget(attentions=large)'''
COMPARE = 'show_attention(model, tokenizer, text, layer=1, head=2, compare=other, names=("三层的", "两层的"))'


STUDIO = '''import sys; sys.path.insert(0, "..")
import torch; torch.set_num_threads(1)
from transformers import BertLMHeadModel
from utils.models.checkpoints import load_checkpoint
from utils.corpus import generate
from utils.views.widgets.studio import Studio
model, tokenizer, _ = load_checkpoint("clm", BertLMHeadModel, prefer="shipped", is_decoder=True)
intro = generate("test", 1)[0]["intro"]
studio = Studio(model, tokenizer, intro + "\\n")
studio'''


def write(path: Path) -> Path:
    """把小 notebook 写到 path：一张注意力图、一张步进图、一张并排比较、一张 12 层 × 12 头 × 64 词元的大图。"""
    return save(path, SETUP, "show_attention(model, tokenizer, text, layer=1, head=2)",
                "show_stepper(model, tokenizer, text, layer=1, head=2, token=5)", COMPARE, LARGE)


def write_studio(path: Path) -> Path:
    """把写作台的小 notebook 写到 path：用的是课程附带的检查点，开头是一条测试集的导语。"""
    return save(path, STUDIO)


def save(path: Path, *cells: str) -> Path:
    """几格代码存成一本 notebook。"""
    book = new_notebook(cells=[new_code_cell(source) for source in cells])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, path)
    return path
