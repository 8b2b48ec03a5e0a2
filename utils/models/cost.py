"""账：Transformer 有多少参数，读一批要多少次浮点运算（FLOP），都由公式算。首次实现：transformer。

字母：B 批大小，T 词元数，L 层数，C 模型宽度，F 前馈层宽度，V 词表大小，P 位置数。
一次乘加算 2 FLOP；只算矩阵乘法，softmax、LayerNorm、激活函数不算（和 torch.utils.flop_counter 的规矩相同）。
"""

from __future__ import annotations

from transformers import BertConfig, GPT2Config


def linear(inputs: int, outputs: int) -> int:
    """一个带偏置的线性层的参数个数。"""
    return inputs * outputs + outputs


def block_parameters(hidden: int, inner: int, cross: bool = False) -> int:
    """一层的参数个数：注意力 4(C²+C)，前馈 2CF+F+C，每个 LayerNorm 2C。

    参数：hidden：模型宽度 C；inner：前馈层宽度 F；cross：有没有交叉注意力（解码器的一层）。
    """
    attentions = 2 if cross else 1
    attention = 4 * linear(hidden, hidden)
    ffn = linear(hidden, inner) + linear(inner, hidden)
    return attentions * attention + ffn + (attentions + 1) * 2 * hidden


def bert_parameters(config: BertConfig) -> dict[str, int]:
    """BertForMaskedLM（词表头与字嵌入共享）的参数个数，分三处：嵌入、各层、词表头。

    不共享时，词表头多 V·C 个；库里另有一个不起作用的偏置（V 个），不算。
    """
    C, V = config.hidden_size, config.vocab_size
    embeddings = (V + config.max_position_embeddings + config.type_vocab_size) * C + 2 * C
    head = linear(C, C) + 2 * C + V + (0 if config.tie_word_embeddings else V * C)
    return {"嵌入": embeddings, "各层": config.num_hidden_layers * block_parameters(C, config.intermediate_size), "词表头": head}


def gpt2_parameters(config: GPT2Config) -> dict[str, int]:
    """GPT2LMHeadModel（词表头与字嵌入共享，没有偏置）的参数个数，分三处；末尾的 LayerNorm 算在词表头里。"""
    C = config.n_embd
    inner = config.n_inner or 4 * C
    return {"嵌入": (config.vocab_size + config.n_positions) * C, "各层": config.n_layer * block_parameters(C, inner),
            "词表头": 2 * C}


def block_flops(batch: int, length: int, hidden: int, inner: int) -> dict[str, int]:
    """编码器（或只有自注意力的解码器）一层前向的 FLOP。

    返回：线性层 2·B·T·(4C² + 2CF)，注意力 4·B·T²·C（QKᵀ 与权重乘 V 各一半；有没有因果掩码都这么算）。
    """
    tokens = batch * length
    return {"线性层": 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner), "注意力": 4 * tokens * length * hidden}


def model_flops(config: BertConfig | GPT2Config, batch: int, length: int) -> dict[str, int]:
    """BertForMaskedLM 或 GPT2LMHeadModel 前向一次的 FLOP，分三处：线性层、注意力、词表头。

    参数：config：模型的大小；batch, length：B 句，每句 T 个词元。
    错误：TypeError：别的模型的 config；ValueError：句子比位置长。
    """
    if isinstance(config, BertConfig):
        layers, C, inner, places = (config.num_hidden_layers, config.hidden_size, config.intermediate_size,
                                    config.max_position_embeddings)
        transform = C * C                                      # 词表头里先有一个 C × C 的变换
    elif isinstance(config, GPT2Config):
        layers, C, inner, places, transform = config.n_layer, config.n_embd, config.n_inner or 4 * config.n_embd, config.n_positions, 0
    else:
        raise TypeError(f"只会算 BertConfig 和 GPT2Config，收到的是 {type(config).__name__}。")
    if length > places:
        raise ValueError(f"每句 {length} 个词元，而模型只有 {places} 个位置：请把 length 调小。")
    one = block_flops(batch, length, C, inner)
    return {name: layers * n for name, n in one.items()} | {"词表头": 2 * batch * length * (transform + C * config.vocab_size)}


def attention_overtakes(hidden: int, inner: int) -> int:
    """句子至少多长，注意力的 FLOP 才不少于线性层：4T²C ≥ 2T(4C² + 2CF)，即 T ≥ 2C + F。"""
    return 2 * hidden + inner
