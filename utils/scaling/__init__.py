"""规模：一步要多少时间和内存，练多快，规模定律。"""

from utils.scaling.law import SIZES, fit_law, held_out, layer_parameters, read_runs, train_run
from utils.scaling.measure import count_parameters, matmul_speed, measure_step, step_flops, training_bytes
from utils.scaling.speed import measure_speed, minutes_text, race

__all__ = [
    "SIZES", "count_parameters", "fit_law", "held_out", "layer_parameters", "matmul_speed", "measure_speed",
    "measure_step", "minutes_text", "race", "read_runs", "step_flops", "train_run", "training_bytes",
]
