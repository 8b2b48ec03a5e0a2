"""视图：静态的图（figures）、能点的小部件和它们的 JavaScript（widgets）、bertviz 的图（bertviz）。"""

from utils.views.figures.corpus import corpus_figure, rank_frequency
from utils.views.figures.course_map import draw_map
from utils.views.figures.fact_marks import article_html
from utils.views.figures.landscape import LANDMARKS, draw_landscape, landmark_table
from utils.views.figures.studio import candidates_figure, studio_figure
from utils.views.figures.tokens import count_tokens, draw_tokens, token_pieces, token_playground
from utils.views.figures.transformer import (
    ablation_figure,
    architecture_figure,
    block_figure,
    cross_attention_figure,
    positions_figure,
    rope_figure,
)
from utils.views.widgets.attention import show_attention
from utils.views.widgets.playground import figure_playground
from utils.views.widgets.stepper import show_stepper
from utils.views.widgets.studio import Studio

__all__ = [
    "LANDMARKS", "Studio", "ablation_figure", "architecture_figure", "article_html", "block_figure",
    "candidates_figure", "corpus_figure", "count_tokens", "cross_attention_figure", "draw_landscape",
    "draw_map", "draw_tokens", "figure_playground", "landmark_table", "positions_figure", "rank_frequency",
    "rope_figure", "show_attention", "show_stepper", "studio_figure", "token_pieces", "token_playground",
]
