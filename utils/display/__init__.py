"""显示：图的样式和中文字体，文字的表，网页里的字体。怎样画某一样东西，在 views。"""

from utils.display.fonts import printable, visible
from utils.display.plotting import COLORS, figure_png, heatmap, loss_curve, use_chinese_font
from utils.display.tables import pad, show_table

__all__ = [
    "COLORS", "figure_png", "heatmap", "loss_curve", "pad", "printable", "show_table", "use_chinese_font",
    "visible",
]
