"""词元写在图上的名字：普通的词元写它自己，不认识的字写成「[UNK]鲁」，看得出原来是哪个字。首次使用：tokenization。"""

from __future__ import annotations


def unknown_name(piece: str, mark: str = "[UNK]") -> str:
    """变成 [UNK] 的一段原文在图上的名字：记号后面是原文，太长只留头两个字；原文本来就是记号时不重复。"""
    if piece == mark:
        return mark
    return mark + (piece if len(piece) <= 3 else f"{piece[:2]}…")


def token_names(tokenizer, text: str, pair: str | None = None) -> list[str]:
    """一句话（或一对）的每个词元在图上的名字，长 T，与 ``tokenizer(text, pair)`` 的编号一一对应。

    参数：tokenizer：分词器，慢速（纯 Python）的查不到原文，[UNK] 就只写 [UNK]；text, pair：文字。
    """
    if not getattr(tokenizer, "is_fast", False):
        return tokenizer.convert_ids_to_tokens(tokenizer(text, pair)["input_ids"])
    batch, parts = tokenizer(text, pair, return_offsets_mapping=True), (text, pair)
    names = tokenizer.convert_ids_to_tokens(batch["input_ids"])
    for n, (which, (begin, end)) in enumerate(zip(batch.sequence_ids(0), batch["offset_mapping"], strict=True)):
        if which is not None and batch["input_ids"][n] == tokenizer.unk_token_id:
            names[n] = unknown_name(parts[which][begin:end], names[n])
    return names
