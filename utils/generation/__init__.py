"""生成：解码的各种办法，KV 缓存，边写边看；写得好不好的指标。"""

from utils.generation.decoding import Decoding
from utils.generation.kv_cache import CachedDecoder, UncachedDecoder
from utils.generation.metrics import bleu, body_bits_per_char, body_loss, chrf, distinct_n, fidelity, repetition
from utils.generation.novelty import CopyIndex
from utils.generation.writer import encode_prompt
from utils.generation.writing import complete, generate, stream

__all__ = [
    "CachedDecoder", "CopyIndex", "Decoding", "UncachedDecoder", "bleu", "body_bits_per_char", "body_loss",
    "chrf", "complete", "distinct_n", "encode_prompt", "fidelity", "generate", "repetition", "stream",
]
