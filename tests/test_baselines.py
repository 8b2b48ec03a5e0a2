"""基线：与手算的小例子逐一核对。"""

import math

import numpy as np
import pytest

from utils.tokenization.baselines import bigram_nats, bits_per_char, count_targets, neighbour_nats, uniform_nats, unigram_nats


def test_uniform_is_log_vocabulary():
    assert uniform_nats(8) == pytest.approx(3 * math.log(2))
    with pytest.raises(ValueError, match="正整数"):
        uniform_nats(0)


def test_bits_per_char_divides_the_total_by_characters():
    assert bits_per_char(10 * math.log(2), 4) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="字数"):
        bits_per_char(1.0, 0)


def test_first_position_is_never_a_target():
    assert count_targets([[2, 5, 3], [2], []]) == 2
    # 目标是 5 5 6 3：开头的 2 不算
    value = unigram_nats([[2, 5, 5, 6, 3]], [[2, 5], [4, 6]], vocab_size=8, alpha=1.0)
    by_hand = -(math.log((2 + 1) / (4 + 8)) + math.log((1 + 1) / (4 + 8))) / 2
    assert value == pytest.approx(by_hand)


def test_unseen_token_is_paid_for():
    value = unigram_nats([[0, 1, 1]], [[0, 3]], vocab_size=4, alpha=0.5)
    assert value == pytest.approx(-math.log(0.5 / (2 + 0.5 * 4)))


def test_probabilities_of_the_bigram_sum_to_one():
    train = [[0, 1, 2, 1, 3], [0, 2, 2, 1], [0, 1, 1, 3]]
    for context in (0, 1, 2):
        total = sum(math.exp(-bigram_nats(train, [[context, b]], vocab_size=6)) for b in range(6))
        assert total == pytest.approx(1.0)


def test_bigram_by_hand():
    # 十一条相同的序列：留出的与计数的分布相同，c(01)=c(0)、c(12)=c(1),所以 λ 趋于 1
    train = [[0, 1, 2]] * 11
    value = bigram_nats(train, [[0, 1, 2]], vocab_size=3, alpha=1.0)
    assert 0 < value < 1e-3
    # 没见过的上文 2 直接用一元模型：p(1) = (11 + 1) / (22 + 3)
    assert bigram_nats(train, [[2, 1]], 3, 1.0) == pytest.approx(-math.log(12 / 25))


def test_weight_is_the_best_on_the_held_out_part():
    rng = np.random.default_rng(0)
    chain = [[0]]
    for _ in range(1500):  # 一半时候接着数下去，一半时候随便跳
        row = [0]
        for _ in range(20):
            row.append((row[-1] + 1) % 10 if rng.random() < 0.5 else int(rng.integers(10)))
        chain.append(row)
    train, held = chain[1:1200], chain[1200:]
    value = bigram_nats(train, held, 10)
    entropy = -(0.55 * math.log(0.55) + 9 * 0.05 * math.log(0.05))
    assert abs(value - entropy) < 0.02
    assert value < unigram_nats(train, held, 10) - 0.5


@pytest.mark.parametrize("call", [unigram_nats, bigram_nats])
def test_errors_are_in_chinese(call):
    good = [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match="没有目标"):
        call(good, [[1]], 3)
    with pytest.raises(ValueError, match="超出词表"):
        call(good, [[1, 3]], 3)
    with pytest.raises(ValueError, match="alpha"):
        call(good, good, 3, alpha=0)


# ---- 左右邻居
def neighbours(train, row, at, gold, size=12, mask=4):
    labels = [-100] * len(row)
    labels[at] = gold
    return neighbour_nats(train, [row], [labels], size, mask)


TRAIN = [[2, 5, 6, 7, 3], [2, 5, 6, 7, 3], [2, 8, 9, 7, 3], [2, 5, 10, 11, 3]] * 6


@pytest.mark.parametrize("row", [[2, 5, 4, 7, 3], [2, 4, 4, 7, 3], [2, 5, 4, 4, 3], [2, 4, 4, 4, 3], [2, 11, 4, 8, 3]])
def test_probabilities_of_the_neighbours_sum_to_one(row):
    assert sum(math.exp(-neighbours(TRAIN, row, 2, x)[0]) for x in range(12)) == pytest.approx(1)


def test_neighbours_help_and_a_masked_neighbour_does_not():
    both, left, none = (neighbours(TRAIN, row, 2, 6)[0] for row in ([2, 5, 4, 7, 3], [2, 5, 4, 4, 3], [2, 4, 4, 4, 3]))
    assert both < left < none
    assert none == pytest.approx(-math.log((12 + 0.1) / (96 + 1.2)))          # 两边都盖住，就只剩字频
    assert neighbours(TRAIN, [2, 8, 4, 7, 3], 2, 9)[1] == 1 and neighbours(TRAIN, [2, 5, 4, 7, 3], 2, 9)[1] == 0


def test_neighbours_only_read_what_is_shown():
    """盖住的位置里写着什么，不影响结果：答案不能从输入里漏出来。"""
    assert neighbours(TRAIN, [2, 5, 4, 7, 3], 2, 6) == neighbours(TRAIN, [2, 5, 9, 7, 3], 2, 6)


@pytest.mark.parametrize("call, words", [
    (lambda: neighbour_nats([[1, 2, 3]], [[1, 2, 3]], [[-100, 2, -100]], 9, 4), "至少要有两条训练序列"),
    (lambda: neighbour_nats(TRAIN, [[1, 2, 3]], [[-100] * 3], 12, 4), "没有目标")])
def test_neighbour_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
