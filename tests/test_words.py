"""Word vectors: the text, what is drawn from it, the gradients, and the whole comparison."""

import json

import numpy as np
import pytest

from gpuadapt import cli
from gpuadapt.compare import compare_words, corpus, skipgram, words
from gpuadapt.errors import Error

TOPICS, NAMES = 8, 30


def text(length=30_000, seed=0):
    """Sentences of ten words, each of one topic; within a topic the usual few are frequent."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, NAMES + 1)
    topics = np.repeat(random.integers(TOPICS, size=length // 10), 10)
    names = random.choice(NAMES, size=len(topics), p=weights / weights.sum())
    return "\n".join(f"topic{t}x{n}" for t, n in zip(topics.tolist(), names.tolist(), strict=True))


@pytest.fixture(scope="module")
def small():
    return corpus.build("a text", iter([text()]))


def test_words_of_a_text():
    found = corpus.WORD.findall("self._readLines2(x, utf_8) # Élan 3d".lower())
    assert found == ["self", "readlines2", "utf", "élan"]


def test_vocabulary(small):
    assert len(small.text) + len(small.held_out) <= 30_000
    assert 0.04 < len(small.held_out) / len(small.text) < 0.06
    assert (np.bincount(small.text, minlength=len(small.words)) == small.counts).all()
    assert (np.diff(small.counts) <= 0).all() and small.counts.min() >= corpus.MIN_COUNT
    assert small.words[0].endswith("x0")
    assert small.text.dtype == small.held_out.dtype == np.int32


def test_a_folder_and_a_file(tmp_path):
    parts = [text(15_000, seed) for seed in (1, 2)]
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "second.txt").write_text(parts[1])
    (folder / "a.py").write_text(parts[0])
    (folder / "c.png").write_bytes(b"\x89PNG\xff\xfe nottext")
    (folder / "d.bin").write_bytes(b"nottext\0" * 100)
    single = tmp_path / "one.txt"
    single.write_text("\n".join(parts))
    results = [corpus.load(path) for path in (folder, folder, single)]
    for other in results[1:]:
        assert other.words == results[0].words
        for name in ("counts", "text", "held_out"):
            assert np.array_equal(getattr(other, name), getattr(results[0], name))


def test_the_standard_library_is_read_without_its_tests(tmp_path, monkeypatch):
    for name in (
        "os.py",
        "email/__init__.py",
        "test/x.py",
        "site-packages/numpy.py",
        "a/tests/y.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.txt").write_text("not Python")
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert list(corpus._standard_library()) == ["email/__init__.py", "os.py"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder: "),
        (b"", "too little text in "),
        (b"few words " * 4, "0 words occur at least 5 times, 0 times in all; at least 50"),
        (b"again " * 20_000, "1 words occur at least 5 times, 19,000 times in all"),
        (b"\xff\xfe\0", "not a text file that can be read: "),
        ({}, "too little text in "),
        ({"x.bin": b"\0"}, "too little text in "),
    ],
)
def test_a_corpus_that_will_not_do(content, message, tmp_path, capsys):
    path = tmp_path / "corpus"
    if isinstance(content, dict):
        path.mkdir()
        for name, data in content.items():
            (path / name).write_bytes(data)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(Error, match=message):
        corpus.load(path)
    output = tmp_path / "results"
    # Both tasks: the corpus is looked at before the digits are trained.
    given = ["compare", "--backend", "cpu", "--output", str(output), "--corpus", str(path)]
    assert cli.main(given) == 2
    written = capsys.readouterr()
    assert written.err.startswith("gpuadapt compare: ") and message in written.err
    assert len(written.err.splitlines()) == 1 and not written.out


def test_frequent_words_are_subsampled():
    """Section 2.3: discarded with probability 1 - sqrt(t / f); then windows of 1 to 5."""
    counts = np.array([60_000, 30_000, 9_000, 990, 10])
    threshold = 1e-2
    keep = skipgram.keep_probability(counts, threshold)
    assert keep == pytest.approx([(0.01 / 0.6) ** 0.5, (0.01 / 0.3) ** 0.5, (1 / 9) ** 0.5, 1, 1])
    random = np.random.default_rng(0)
    written = random.permutation(np.repeat(np.arange(5, dtype=np.int32), counts))
    centre, context = skipgram.draw_pairs(random, written, keep)
    for drawn in (np.bincount(centre), np.bincount(context)):
        # A word that stays has 6 pairs in the mean, with a variance of 8 as a centre.
        spread = np.sqrt(counts * keep * (8 + 36 * (1 - keep)))
        assert (abs(drawn - 6 * counts * keep) < 5 * spread + 30).all()


def test_windows():
    """A context word at distance d is in the window in (6 - d) of 5 cases."""
    n = 50_000
    written = np.arange(n, dtype=np.int32)
    centre, context = skipgram.draw_pairs(np.random.default_rng(0), written, np.ones(n))
    distance, found = np.unique(context - centre, return_counts=True)
    assert distance.tolist() == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    p = (6 - abs(distance)) / 5
    assert (abs(found - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 5).all()


def test_noise_words():
    """Section 2.2: unigram counts to the power 3/4."""
    counts = np.array([10_000, 3_000, 500, 40, 5])
    p = skipgram.noise_probability(counts)
    assert p == pytest.approx(counts**0.75 / (counts**0.75).sum())
    n = 400_000
    drawn = skipgram.draw_noise(np.random.default_rng(0), counts, (n // 8, 8))
    assert drawn.shape == (n // 8, 8) and drawn.dtype == np.int32
    found = np.bincount(drawn.ravel(), minlength=5)
    assert (abs(found - n * p) < 5 * np.sqrt(n * p * (1 - p))).all()


def test_batches_repeat_and_fill_their_shapes(small):
    one, two = (skipgram.draw_batches(small, 7, seed=3) for _ in range(2))
    assert one.centre.shape == one.context.shape == (7, skipgram.BLOCKS, skipgram.PAIRS)
    assert one.noise.shape == (7, skipgram.BLOCKS, skipgram.SHARED)
    for name in ("centre", "context", "noise"):
        array = getattr(one, name)
        assert array.dtype == np.int32 and array.flags.c_contiguous
        assert array.min() >= 0 and array.max() < len(small.words)
        assert np.array_equal(array, getattr(two, name))
    assert not np.array_equal(one.centre, skipgram.draw_batches(small, 7, seed=4).centre)


def test_gradients():
    """Against differences, in float64, with words that occur more than once."""
    random = np.random.default_rng(0)
    tables = {name: random.normal(size=(6, 4)) for name in ("centre", "context")}
    batch = tuple(random.integers(6, size=(2, n)) for n in (5, 5, 3))
    found = skipgram.gradients(np, tables, *batch)
    for name, table in tables.items():
        rows, values = found[name]
        dense = np.zeros_like(table)
        np.add.at(dense, rows, values)
        for index in np.ndindex(table.shape):
            before = table[index]
            ends = []
            for step in (1e-6, -1e-6):
                table[index] = before + step
                ends.append(skipgram.loss(np, tables, *batch).sum())
            table[index] = before
            assert abs((ends[0] - ends[1]) / 2e-6 - dense[index]) < 1e-7


def test_loss_is_the_papers():
    """Equation 4, pair by pair; k noise words, of which each weighs one."""
    random = np.random.default_rng(1)
    k = skipgram.NEGATIVES
    tables = {name: random.normal(size=(9, 4)) for name in ("centre", "context")}
    centre, context = random.integers(9, size=(2, 1, 3))
    noise = random.integers(9, size=(1, k))
    found = skipgram.loss(np, tables, centre, context, noise)

    def log_sigmoid(x):
        return -np.log(1 + np.exp(-x))

    for pair in range(3):
        v = tables["centre"][centre[0, pair]]
        expected = log_sigmoid(tables["context"][context[0, pair]] @ v)
        expected += sum(log_sigmoid(-tables["context"][i] @ v) for i in noise[0])
        assert found[0, pair] == pytest.approx(-expected)


def test_scores_beyond_exp_neither_warn_nor_spoil():
    tables = {name: np.full((2, 4), 40, np.float32) for name in ("centre", "context")}
    tables["context"][1] *= -1
    batch = tuple(np.array([[0, 1]], np.int32) for _ in range(3))
    assert np.isfinite(skipgram.loss(np, tables, *batch)).all()
    for _, values in skipgram.gradients(np, tables, *batch).values():
        assert values.dtype == np.float32 and np.isfinite(values).all()


def parse(path):
    """word2vec's text format, read by the rules of those who read it."""
    first, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    count, dim = map(int, first.split(" "))
    parts = [line.split(" ") for line in lines]
    assert len(parts) == count and {len(part) for part in parts} == {dim + 1}
    return [part[0] for part in parts], np.array([part[1:] for part in parts]).astype(np.float32)


def test_vectors_round_trip(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    vectors[0, :3] = 1e-42, -0.0, 3.4e38
    names = ["read", "élan", "utf8"]
    words.write_vectors(tmp_path / "words.vec", names, vectors)
    read_names, read_vectors = parse(tmp_path / "words.vec")
    assert read_names == names
    assert read_vectors.tobytes() == vectors.tobytes()


def test_compare_words(tmp_path, monkeypatch, capsys):
    """As a user calls it, with less work."""
    monkeypatch.setattr(words, "STEPS", 80)
    source, output = tmp_path / "texts", tmp_path / "results"
    source.mkdir()
    (source / "a.txt").write_text(text())
    given = ["--corpus", str(source), "--backend", "cpu", "--output", str(output)]
    assert cli.main(["compare", "--task", "words", *given]) == 0
    printed, log = capsys.readouterr()
    for method in words.METHODS:
        assert method in printed and f" s: {method} has ended\n" in log
    assert log.startswith("words, from ") and "100 %" in log.splitlines()[-1]
    assert sorted(path.name for path in output.iterdir()) == [
        "words.json",
        "words.png",
        "words.vec",
    ]
    picture = (output / "words.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000

    content = json.loads((output / "words.json").read_text())
    assert [row["method"] for row in content["summary"]] == list(words.METHODS)
    for row, run in zip(content["summary"], content["runs"], strict=True):
        assert row["loss"] == run["loss"][-1] < 0.9 * run["loss"][0]
        assert row["rare_loss"] == run["rare_loss"][-1] < 0.95 * run["rare_loss"][0]
        assert len(run["words"]) == len(run["loss"]) == words.POINTS + 1
        assert 0 < row["share"] < 1 and row["words_per_second"] > 0
    kinds = content["kinds"]
    assert kinds["steps"] == 80 and "bit for bit" in printed
    for lazy, exact, dense in zip(*(iter(kinds["runs"]),) * 3, strict=True):
        assert [run["kind"] for run in (lazy, exact, dense)] == ["lazy", "exact", "dense"]
        assert [run["equal"] for run in (lazy, exact, dense)] == [False, True, True]
        assert lazy["loss"] != exact["loss"] == dense["loss"] and exact["rare_loss"] > 0
    common = content["settings"]
    assert common["steps"] == 80 and 0 < common["rows_per_step"] <= common["rows"]
    best = min(content["summary"], key=lambda row: row["loss"])
    assert content["vectors"] == best["method"]

    names, vectors = parse(output / "words.vec")
    assert vectors.shape == (common["vocabulary"], common["dim"])
    assert names == corpus.load(source).words
    # Neighbours are mostly of the word's own topic.
    same = [
        word.split("x")[0] == other.split("x")[0]
        for word, others in content["neighbours"].items()
        for other, _ in others
    ]
    assert len(same) >= 20 and np.mean(same) > 0.9
    assert next(iter(content["neighbours"])) in printed


def test_a_run_repeats(small):
    batches = skipgram.draw_batches(small, 10, seed=0)
    runs = [words.train("Adam", small, batches, "cpu", lambda n, more: None) for _ in range(2)]
    assert runs[0][0].loss == runs[1][0].loss
    assert np.array_equal(runs[0][1], runs[1][1])


def test_compare_words_takes_its_work_as_an_argument(small, tmp_path):
    compare_words("cpu", small, tmp_path, 3)
    assert json.loads((tmp_path / "words.json").read_text())["settings"]["steps"] == 3
