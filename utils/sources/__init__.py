"""资料：读自己的文件、文章和 hub 上的数据集，清洗，去重；同一个 load_corpus 把它们装进来。"""

from utils.sources.articles import load_articles
from utils.sources.cleaning import clean
from utils.sources.dedup import near_duplicates
from utils.sources.files import load_files
from utils.sources.hub import load_hub
from utils.sources.hub_models import load_hub_model
from utils.sources.store import split_documents

__all__ = [
    "clean", "load_articles", "load_files", "load_hub", "load_hub_model", "near_duplicates", "split_documents",
]
