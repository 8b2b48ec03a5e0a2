"""模型：注意力、Transformer、BERT、编码器—解码器，它们的初始化、检查点，和算大小、算计算量的公式。"""

from utils.models.attention import MultiHeadSelfAttention, causal_mask, padding_mask, scaled_dot_product_attention
from utils.models.bert import Bert
from utils.models.checkpoints import find_checkpoint, load_checkpoint, load_folder, save_checkpoint, stages
from utils.models.cost import attention_overtakes, bert_parameters, block_flops, gpt2_parameters, model_flops
from utils.models.initialization import aim_heads, copy_heads, prepare_heads, renew_top, set_positions
from utils.models.seq2seq import EncoderDecoder, encode_pairs, normalise, pair_collator
from utils.models.transformer import DecoderBlock, EncoderBlock

__all__ = [
    "Bert", "DecoderBlock", "EncoderBlock", "EncoderDecoder", "MultiHeadSelfAttention", "aim_heads",
    "attention_overtakes", "bert_parameters", "block_flops", "causal_mask", "copy_heads", "encode_pairs",
    "find_checkpoint", "gpt2_parameters", "load_checkpoint", "load_folder", "model_flops", "normalise",
    "padding_mask", "pair_collator", "prepare_heads", "renew_top", "save_checkpoint",
    "scaled_dot_product_attention", "set_positions", "stages",
]
