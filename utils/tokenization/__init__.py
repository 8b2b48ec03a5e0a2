"""分词：一句中文的八种切法、课程的字表，以及数一数就有的基线。"""

from utils.tokenization.baselines import bigram_nats, bits_per_char, count_targets, neighbour_nats, uniform_nats, unigram_nats
from utils.tokenization.tokenizer import (
    GRANULARITIES,
    GRANULARITY_NAMES,
    IGNORE,
    LOSSLESS,
    build_tokenizer,
    check_vocabulary,
    course_tokenizer,
    encode_pair,
    encode_texts,
    name_unknown,
    unknown_note,
    vocabulary_id,
)
from utils.tokenization.vocabularies import SPECIAL_TOKENS, bytes_to_symbols, jieba_words

__all__ = [
    "GRANULARITIES", "GRANULARITY_NAMES", "IGNORE", "LOSSLESS", "SPECIAL_TOKENS", "bigram_nats",
    "bits_per_char", "build_tokenizer", "bytes_to_symbols", "check_vocabulary", "count_targets",
    "course_tokenizer", "encode_pair", "encode_texts", "jieba_words", "name_unknown", "neighbour_nats",
    "uniform_nats", "unigram_nats", "unknown_note", "vocabulary_id",
]
