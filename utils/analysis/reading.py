"""从一个模型里把注意力读出来：一句话的全部权重，或一个头的 q、k、v，供画图和分析。"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from utils.models.attention import MultiHeadSelfAttention, causal_mask, scaled_dot_product_attention
from utils.tokenization.names import token_names
from utils.tokenization.tokenizer import check_vocabulary, unknown_note


@dataclass(frozen=True)
class Attentions:
    """一句话在一个模型里的全部注意力。

    属性：tokens：T 个词元的名字；weights：(L, H, T, T)，每行之和是 1；note：一句话，哪些字不在词表里，都认识时是空串。
    """

    tokens: list[str]
    weights: torch.Tensor
    note: str = ""

    @property
    def layers(self) -> int:
        return self.weights.size(0)

    @property
    def heads(self) -> int:
        return self.weights.size(1)


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[nn.Module]:
    """暂时换成 eager 注意力、评估模式、不记梯度；离开时一切恢复原样。

    为什么：默认的 sdpa 实现不产生权重矩阵，output_attentions=True 只会得到空元组。
    """
    previous = model.config._attn_implementation
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.set_attn_implementation("eager")
        model.eval()
        with torch.no_grad():
            yield model
    finally:
        model.set_attn_implementation(previous)
        for module, training in modes:
            module.training = training


def encode_text(model: nn.Module, tokenizer, text: str, pair: str | None = None,
                max_tokens: int = 256) -> dict[str, torch.Tensor]:
    """把一句话变成模型的输入（批大小 1），太长、为空都用中文说清楚。

    错误：TypeError:text 不是字符串；ValueError：模型与分词器不是一对，没有内容，有不成对的代理码，
        或词元数超过模型的位置数或 max_tokens。
    """
    check_vocabulary(model, tokenizer)
    for part in (text, "" if pair is None else pair):
        if not isinstance(part, str):
            raise TypeError(f"句子要是字符串，收到的是 {type(part).__name__}。")
        if any(unicodedata.category(char) == "Cs" for char in part):
            raise ValueError("句子里有半个字符（不成对的代理码），不是合法的文字：请删掉它再试。")
    if not text.strip():
        raise ValueError("句子是空的：请至少写一个字。")
    batch = tokenizer(text, pair, return_tensors="pt")
    length, positions = batch["input_ids"].size(1), getattr(model.config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise ValueError(f"这句话切成了 {length} 个词元，而模型只有 {positions} 个位置：请写短一些。")
    if length > max_tokens:
        raise ValueError(f"这句话切成了 {length} 个词元，这里最多画 {max_tokens} 个：请写短一些。")
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def get_attentions(model: nn.Module, tokenizer, text: str, pair: str | None = None,
                   max_tokens: int = 256) -> Attentions:
    """让模型读一句话（或一对），取出每一层、每一个头的注意力权重。

    参数：model: Hugging Face 模型；tokenizer：它的分词器；pair：第二段文字，可省；max_tokens：词元数上限。
    返回：Attentions，weights 是 CPU 上的 float32，形状 (L, H, T, T)；不认识的字写成「[UNK]鲁」，note 里点了名。
        模型的状态（注意力实现、训练模式）不变。
    错误：TypeError、ValueError 同 encode_text;RuntimeError：模型没有给出注意力。首次使用：self_attention。
    """
    inputs = encode_text(model, tokenizer, text, pair, max_tokens)
    with eager_attention(model):
        layers = model(**inputs, output_attentions=True).attentions
    if not layers or layers[0] is None:
        raise RuntimeError(f"{type(model).__name__} 没有给出注意力权重：它可能不支持 eager 注意力。")
    weights = torch.cat([layer.float().cpu() for layer in layers])  # (L, H, T, T)
    return Attentions(token_names(tokenizer, text, pair), weights, _note(tokenizer, text, pair))


def _note(tokenizer, text: str, pair: str | None = None) -> str:
    return unknown_note(tokenizer, text, pair) if getattr(tokenizer, "is_fast", False) else ""  # 慢速分词器查不到原文


def word_groups(tokenizer, text: str, pair: str | None = None) -> list[tuple[int, int] | None] | None:
    """每个词元属于哪个词：合并子词时用的标签，由分词器的 word_ids() 得来。

    参数：tokenizer：分词器；text, pair：同 encode_text。
    返回：长度 T 的列表，元素是 (第几段，段里第几个词)，[CLS]、[SEP] 这样的特殊词元是 None；
        慢速（纯 Python）分词器没有 word_ids()，返回 None，这时 merge_subwords 改按「##」合并。
    首次使用：attention_visualization。
    """
    batch = tokenizer(text, pair)
    if not getattr(tokenizer, "is_fast", False):
        return None
    pairs = zip(batch.sequence_ids(0), batch.word_ids(0), strict=True)
    return [None if word is None else (sequence, word) for sequence, word in pairs]


def merge_subwords(attentions: Attentions, groups: Sequence[Hashable | None] | None = None) -> Attentions:
    """把子词的注意力合并成词的注意力：列相加，行取平均，所以每行之和仍是 1。

    为什么：「看向一个词」的权重，是看向它每一块的权重之和；「一个词在看谁」有好几行，
    每行各自之和是 1，取平均之后仍是 1，取和就成了块数。

    参数：
        attentions：合并前的注意力，weights (L, H, T, T)。
        groups：长度 T 的标签，相邻而且标签相同的词元合成一个词，标签 None 的不合并。
            可以是 word_groups 的结果，也可以是每个词元在 jieba 结果里的词号。
            None 表示按 WordPiece 的写法：以「##」开头的并到前一个词元。
    返回：新的 Attentions，weights (L, H, W, W)，W 个词；词的写法由各块去掉「##」后连成。
    错误：ValueError:groups 的长度不是 T。首次使用：attention_visualization。
    """
    tokens, weights = attentions.tokens, attentions.weights
    continues = [token.startswith("##") and len(token) > 2 for token in tokens]
    if groups is None:
        joined = continues
    else:
        labels = list(groups)
        if len(labels) != len(tokens):
            raise ValueError(f"groups 要给每个词元一个标签：有 {len(tokens)} 个词元，却收到 {len(labels)} 个标签。")
        joined = [i > 0 and labels[i] is not None and labels[i] == labels[i - 1] for i in range(len(labels))]
    index = torch.tensor([not (i and join) for i, join in enumerate(joined)]).long().cumsum(0) - 1  # (T,)：词号
    member = torch.nn.functional.one_hot(index).to(weights.dtype)  # (T, W)：第 t 个词元是不是第 w 个词的一块
    rows = member / member.sum(0)  # (T, W)：每个词的各块平分
    words = [""] * member.size(1)
    for i, w in enumerate(index.tolist()):
        words[w] += tokens[i][2:] if words[w] and continues[i] else tokens[i]
    return replace(attentions, tokens=words, weights=rows.T @ weights @ member)  # (W, T) x (L, H, T, T) x (T, W) -> (L, H, W, W)


@dataclass(frozen=True)
class HeadVectors:
    """一个头里每个词元的三个向量。tokens、note：同 Attentions；q、k、v：(T, D)；mask：(T, T) 布尔，True 可以看。"""

    tokens: list[str]
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor
    note: str = ""


def get_head_vectors(model: nn.Module, tokenizer, text: str, layer: int = 0, head: int = 0,
                     max_tokens: int = 256) -> HeadVectors:
    """取出 BERT 类模型某一层某一个头在一句话上的 q、k、v(CPU,float32)。

    模型若是解码器（config.is_decoder），mask 就是因果掩码，否则全是 True。
    错误：TypeError、ValueError 同 encode_text;ValueError：没有这一层或这个头。首次使用：self_attention。
    """
    layers = model.base_model.encoder.layer
    if not (0 <= layer < len(layers) and 0 <= head < model.config.num_attention_heads):
        raise ValueError(f"模型有 {len(layers)} 层、每层 {model.config.num_attention_heads} 个头"
                         f"（都从 0 数起），没有第 {layer} 层第 {head} 个头。")
    inputs = encode_text(model, tokenizer, text, max_tokens=max_tokens)
    block, seen = layers[layer].attention, []
    hook = block.register_forward_pre_hook(lambda _, args, kwargs: seen.append((*args, *kwargs.values())[0]),
                                           with_kwargs=True)
    try:
        with eager_attention(model):
            model(**inputs)
            own = MultiHeadSelfAttention.from_bert_layer(block)
            q, k, v = (own.split_heads(f(seen[0]))[0, head].float().cpu()
                       for f in (own.query, own.key, own.value))  # (T, D) x 3
    finally:
        hook.remove()
    T = inputs["input_ids"].size(1)
    mask = causal_mask(T) if model.config.is_decoder else torch.ones(T, T, dtype=torch.bool)
    return HeadVectors(token_names(tokenizer, text), q, k, v, mask, _note(tokenizer, text))


def attention_steps(vectors: HeadVectors) -> dict[str, torch.Tensor]:
    """一个头的每一步：q、k、v (T, D),scores、scaled、masked、weights (T, T),output (T, D)。

    首次实现：self_attention。
    """
    q, k, v, mask = vectors.q, vectors.k, vectors.v, vectors.mask
    scores = q @ k.T  # (T, T)
    scaled = scores / math.sqrt(q.size(-1))  # (T, T)
    output, weights = scaled_dot_product_attention(q, k, v, mask)  # (T, D), (T, T)
    return {"q": q, "k": k, "v": v, "scores": scores, "scaled": scaled,
            "masked": scaled.masked_fill(~mask, float("-inf")), "weights": weights, "output": output}
