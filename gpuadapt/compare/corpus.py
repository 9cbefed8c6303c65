"""Text as numbers: the files of a corpus, its words, its vocabulary."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import Error

MIN_COUNT = 5
"""Words that occur less often in the text that is learned from are left out."""
LEAST_WORDS = 10_000
LEAST_VOCABULARY = 50
BLOCK = 500
HELD_OUT = 20
"""Of every so many blocks of words, the last is kept for evaluation."""

# A letter, then letters or digits: identifiers fall apart at underscores, which makes
# "read_text" and "write_text" share a word (and gives fewer words that occur once).
WORD = re.compile(r"[^\W\d_][^\W_]+")

# Not written by hand for readers: tests, other people's packages, tables of characters.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"}


@dataclass
class Corpus:
    """A text as indices into its vocabulary."""

    name: str
    words: list[str]
    """The vocabulary, most frequent first."""
    counts: np.ndarray
    """How often each word occurs in ``text``."""
    text: np.ndarray
    """What is learned from, int32."""
    held_out: np.ndarray
    """What is kept for evaluation, int32."""

    @property
    def first_rare(self) -> int:
        """Rare words are the rarer half of the vocabulary: this index and above."""
        return len(self.words) // 2


def load(path: Path | None) -> Corpus:
    """The corpus in a file or folder; without one, the source text of Python's standard library.

    The same files give the same corpus.

    Raises
    ------
    Error
        There is no such path, no text in it, or too little.
    """
    if path is None:
        return build("the Python standard library", _standard_library())
    return build(str(path), _texts(path))


def build(name: str, texts: Iterator[str]) -> Corpus:
    """Words, vocabulary and held-out blocks of texts, which are read as one."""
    found = [word for text in texts for word in WORD.findall(text.lower())]
    held = np.arange(len(found)) // BLOCK % HELD_OUT == HELD_OUT - 1
    counter = Counter(word for word, out in zip(found, held.tolist(), strict=True) if not out)
    # Ties by the alphabet: the order of files shall not show in that of words.
    frequent = sorted((-n, word) for word, n in counter.items() if n >= MIN_COUNT)
    total = sum(-n for n, _ in frequent)
    if total < LEAST_WORDS or len(frequent) < LEAST_VOCABULARY:
        raise Error(
            f"too little text in {name}: {len(frequent):,} words occur at least {MIN_COUNT} times, "
            f"{total:,} times in all; at least {LEAST_VOCABULARY} and {LEAST_WORDS:,} are needed"
        )
    words = [word for _, word in frequent]
    index = {word: i for i, word in enumerate(words)}
    ids = np.array([index.get(word, -1) for word in found], np.int32)
    known, counts = ids >= 0, np.array([-n for n, _ in frequent], np.int64)
    return Corpus(name, words, counts, ids[known & ~held], ids[known & held])


def _standard_library() -> Iterator[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT.isdisjoint(path.relative_to(root).parts):
            yield from _text(path)


def _texts(path: Path) -> Iterator[str]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield from _text(file)
    elif path.is_file():
        texts = list(_text(path))
        if not texts:
            raise Error(f"not a text file that can be read: {path}")
        yield from texts
    else:
        raise Error(
            f"no such file or folder: {path}; --corpus takes a text file or a folder of text files"
        )


def _text(file: Path) -> Iterator[str]:
    """The text of a file, or nothing if it is not text in UTF-8 or may not be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if "\0" not in text:
        yield text
