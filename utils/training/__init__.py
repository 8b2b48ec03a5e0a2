"""训练：文档变成批，损失，Trainer 的循环；停下再续，几个进程一起练，微调。"""

from utils.training.batches import bert_config, clm_collator, encode_docs, fixed_batches, mlm_collator
from utils.training.collators import Collator
from utils.training.compute import FlopsMeter
from utils.training.finetuning import adapt, add_lora, as_masked_lm, freeze_bottom, prefix_mask, scratch_like, trainable_share
from utils.training.history import History
from utils.training.loop import train, training_arguments
from utils.training.losses import evaluate
from utils.training.objectives import (
    corrupt_spans,
    mask_tokens,
    mask_words,
    masking_collator,
    pair_collator,
    sentence_pairs,
    span_collator,
    word_index,
)
from utils.training.processes import launch, saved_steps, torchrun, workers
from utils.training.timed import train_for

__all__ = [
    "Collator", "FlopsMeter", "History", "adapt", "add_lora", "as_masked_lm", "bert_config", "clm_collator",
    "corrupt_spans", "encode_docs", "evaluate", "fixed_batches", "freeze_bottom", "launch", "mask_tokens",
    "mask_words", "masking_collator", "mlm_collator", "pair_collator", "prefix_mask", "saved_steps",
    "scratch_like", "sentence_pairs", "span_collator", "torchrun", "train", "train_for", "trainable_share",
    "training_arguments", "word_index", "workers",
]
