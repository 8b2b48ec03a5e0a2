"""分析：从模型里读出注意力，给头分工、去掉头、归因、最小对立对。"""

from utils.analysis.ablation import ablation_cost, head_means, random_heads_like, without_heads
from utils.analysis.attribution import METHODS, attribute, compare_attributions, fact_questions, mean_interval, rollout, spearman
from utils.analysis.minimal_pairs import accuracy, frequency_margins, held_out_head, known_pairs, load_pairs, margins, partner_attention
from utils.analysis.practice import documents, exercise
from utils.analysis.reading import Attentions, HeadVectors, attention_steps, eager_attention, get_attentions, get_head_vectors
from utils.analysis.roles import ROLES, look_back, role_figure, score_roles

__all__ = [
    "Attentions", "HeadVectors", "METHODS", "ROLES", "ablation_cost", "accuracy", "attention_steps",
    "attribute", "compare_attributions", "documents", "eager_attention", "exercise", "fact_questions",
    "frequency_margins", "get_attentions", "get_head_vectors", "head_means", "held_out_head", "known_pairs",
    "load_pairs", "look_back", "margins", "mean_interval", "partner_attention", "random_heads_like",
    "role_figure", "rollout", "score_roles", "spearman", "without_heads",
]
