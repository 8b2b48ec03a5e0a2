"""notebook 里的表：转义、对齐、格数。"""

from html.parser import HTMLParser

import pytest

from utils.display.tables import show_table


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs).get("style", "")))

    def handle_data(self, data):
        self.cells.append(data)


def test_every_cell_is_shown_escaped_and_aligned():
    parser = Cells()
    parser.feed(show_table(["名字", "<数>"], [["<script>alert(1)</script>", 1.5], ["甲 & 乙", "✗"]], "标题 <b>").data)
    assert [c for c in parser.cells if c.strip()] == ["标题 <b>", "名字", "<数>", "<script>alert(1)</script>", "1.5", "甲 & 乙", "✗"]
    tags = [tag for tag, _ in parser.tags]
    assert set(tags) == {"table", "caption", "tr", "th", "td"} and tags.count("th") == 2 and tags.count("td") == 4
    assert [style.split(":")[1] for tag, style in parser.tags if tag == "td"] == ["left", "right"] * 2


def test_a_ragged_row_is_refused():
    with pytest.raises(ValueError, match="这一行有 1 格，表头却有 2 格"):
        show_table(["甲", "乙"], [["丙"]])
