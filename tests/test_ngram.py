"""The n-gram model against its definition written with dictionaries, and how the model card measures nano beside it."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

import nano_card
import train_nano
from ngram import NgramModel
from tiltmeter.data import stdlib
from tiltmeter.errors import TiltmeterError

VOCABULARY = 9


def zipf_stream(length, seed, vocabulary=VOCABULARY):
    """Tokens that repeat often enough for all counts of counts to be above zero; the last token never occurs."""
    weights = 1 / np.arange(1, vocabulary)
    random = np.random.default_rng(seed)
    return random.choice(vocabulary - 1, size=length, p=weights / weights.sum())


class Naive:
    """Chen & Goodman's interpolated estimate, straight from its formulas."""

    def __init__(self, stream, order, vocabulary):
        self.order, self.vocabulary, self.fallbacks = order, vocabulary, 0
        stream = [int(token) for token in stream]
        grams = {n: [tuple(stream[i : i + n]) for i in range(len(stream) - n + 1)] for n in range(1, order + 1)}
        self.counts = {}
        for n in grams:
            self.counts[n, "top"] = Counter(grams[n])
            if n < order:
                self.counts[n, "lower"] = Counter(gram[1:] for gram in set(grams[n + 1]))
        self.discounts = {key: self._discount(counter) for key, counter in self.counts.items()}

    def _discount(self, counter):
        n1, n2, n3, n4 = (sum(count == times for count in counter.values()) for times in (1, 2, 3, 4))
        if min(n1, n2, n3, n4) > 0:
            y = n1 / (n1 + 2 * n2)
            found = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if min(found[1:]) > 0:
                return found
        self.fallbacks += 1
        return [0.0, 0.5, 1.0, 1.5]

    def probability(self, context, token, place="top"):
        """P(token | context), of the model of order len(context) + 1 at the top."""
        key = len(context) + 1, place
        shorter = self.probability(context[1:], token, "lower") if context else 1 / self.vocabulary
        following = {gram: count for gram, count in self.counts[key].items() if gram[:-1] == context}
        total = sum(following.values())
        if total == 0:
            return shorter
        count = following.get((*context, token), 0)
        freed = sum(self.discounts[key][min(c, 3)] for c in following.values())
        return (count - self.discounts[key][min(count, 3)]) / total + freed / total * shorter


@pytest.mark.parametrize(("order", "length"), [(1, 60), (2, 150), (3, 150), (5, 150), (5, 12)])
def test_equals_the_definition_written_with_dictionaries(order, length):
    stream = zipf_stream(length, seed=order)
    pieces = np.random.default_rng(8).integers(0, VOCABULARY, (12, 8))
    pieces[:4] = stream[: 4 * 8].reshape(4, 8) if length >= 32 else pieces[:4]
    model, naive = NgramModel.train(stream, order, VOCABULARY), Naive(stream, order, VOCABULARY)
    expected = [
        [np.log(naive.probability(tuple(piece[max(0, i + 1 - order) : i]), piece[i])) for i in range(1, len(piece))]
        for piece in pieces.tolist()
    ]
    np.testing.assert_allclose(model.log_probabilities(pieces), expected, atol=1e-10, rtol=0)


def test_the_comparison_covers_estimated_and_fallback_discounts():
    naive = Naive(zipf_stream(150, seed=5), 5, VOCABULARY)
    assert 0 < naive.fallbacks < len(naive.discounts)


def test_probabilities_over_the_vocabulary_sum_to_one():
    stream = zipf_stream(150, seed=5)
    seen, half_seen = stream[40:44], np.array([VOCABULARY - 1, *stream[41:44]])
    unseen = np.full(4, VOCABULARY - 1)
    model = NgramModel.train(stream, 5, VOCABULARY)
    for context in (seen, half_seen, unseen, seen[:1], unseen[:2], stream[-4:]):
        pieces = np.array([[*context, token] for token in range(VOCABULARY)])
        assert np.exp(model.log_probabilities(pieces)[:, -1]).sum() == pytest.approx(1, abs=1e-12)


def test_sums_to_one_with_twelve_bit_tokens():
    stream = np.random.default_rng(0).integers(4000, 4096, 3000).astype(np.uint16)
    model = NgramModel.train(stream, 5, 4096)
    pieces = np.array([[*stream[100:104], token] for token in range(4096)], dtype=np.uint16)
    probabilities = np.exp(model.log_probabilities(pieces)[:, -1])
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities.argmax() == stream[104]


def test_a_prediction_sees_no_further_than_its_order_and_its_piece():
    model = NgramModel.train(zipf_stream(150, seed=1), 3, VOCABULARY)
    piece = zipf_stream(10, seed=2)[None]
    changed = piece.copy()
    changed[0, 4] = (changed[0, 4] + 1) % VOCABULARY
    differs = model.log_probabilities(piece)[0] != model.log_probabilities(changed)[0]
    assert not differs[:3].any() and differs[3] and differs[4] and not differs[6:].any()


def test_longer_context_helps_where_order_matters_and_not_where_it_does_not():
    cycle = np.tile([0, 1, 0, 2, 0, 3], 100)
    shuffled = np.random.default_rng(0).permutation(cycle)

    def loss(stream, order):
        return -NgramModel.train(stream[:400], order, 4).log_probabilities(stream[None, 400:]).mean()

    assert loss(cycle, 3) < 0.1 < 0.5 < loss(cycle, 2)
    assert loss(shuffled, 3) > loss(shuffled, 1) - 0.02


@pytest.mark.parametrize(
    ("stream", "order", "vocabulary", "said"),
    [
        ([0, 1, 2], 6, 4, "order 6"),
        ([0, 1, 2], 2, 5000, "vocabulary 5000"),
        ([0, 1], 3, 4, "stream of 2 tokens"),
        ([0, 1, 4], 2, 4, "from 0 to 4"),
    ],
)
def test_wrong_input_is_refused(stream, order, vocabulary, said):
    with pytest.raises(TiltmeterError, match=said):
        NgramModel.train(np.array(stream), order, vocabulary)


def source(name, length):
    return nano_card.Source(name, length, np.arange(length, dtype=np.uint16))


def test_cut_begins_each_module_with_its_boundary_and_drops_its_tail():
    pieces, package = nano_card.cut([source("a.x", 300), source("b", 127), source("a.y", 128)])
    assert package.tolist() == [0, 0, 0]
    assert nano_card.cut([source("a", 300), source("b", 127), source("c", 128)])[1].tolist() == [0, 0, 2]
    assert pieces[:, 0].tolist() == [0, 128, 0] and pieces[:, -1].tolist() == [127, 255, 127]


def test_model_nats_are_the_loss_of_transformers():
    model = train_nano.new_model(0).eval()
    pieces = np.random.default_rng(0).integers(0, 4096, (17, 128))
    nats = nano_card.model_nats(model, pieces)
    tokens = torch.from_numpy(pieces)
    with torch.no_grad():
        expected = [model(input_ids=row[None], labels=row[None]).loss.item() for row in tokens]
    np.testing.assert_allclose(nats.mean(axis=1), expected, rtol=1e-5)


def test_token_bytes_add_up_to_the_text():
    text = "def naïve(ℓ):\n\treturn '🙂' * 3  # twice\n" * 3
    tokenizer = train_nano.train_tokenizer([text])
    ids = train_nano.encode(tokenizer, [text])
    assert nano_card.token_bytes(tokenizer)[ids[1:]].sum() == len(text.encode()) > len(ids)


def test_interval_is_of_modules_not_of_tokens():
    random = np.random.default_rng(0)
    level, alone = np.repeat(random.normal(3, 1, 40), 10), random.normal(3, 1, 400)

    def width(nats):
        low, high = map(float, nano_card.interval(nats, np.repeat(np.arange(40), 10), 0).split(" to "))
        assert low < nats.mean() < high
        return high - low

    shared, own = width(np.repeat(level[:, None], 5, axis=1)), width(np.repeat(alone[:, None], 5, axis=1))
    assert shared == pytest.approx(2 * 1.96 / 40**0.5, rel=0.3)
    assert own == pytest.approx(2 * 1.96 / 400**0.5, rel=0.3)


def test_log_runs_on_where_training_was_started_again(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {n}, "seconds": {s}}}\n' for n, s in ((1, 10), (2, 20), (3, 9), (4, 18))))
    assert [record["seconds"] for record in nano_card.read_log(log)] == [10, 20, 29, 38]
    with pytest.raises(TiltmeterError, match="no training log"):
        nano_card.read_log(tmp_path / "absent.jsonl")


def test_card_is_written_from_what_was_measured(tmp_path, monkeypatch):
    some = {
        which: [(name, text[:1500]) for name, text in islice(stdlib.texts(which), 12)]
        for which in ("train", "held-out")
    }
    monkeypatch.setattr(stdlib, "texts", some.get)
    tokenizer = train_nano.train_tokenizer([text for _, text in some["train"]])
    tokenizer.save_pretrained(tmp_path)
    train_nano.new_model(0).half().save_pretrained(tmp_path)
    log = tmp_path / "log.jsonl"
    row = '{{"step": {0}, "tokens": {1}, "train": 3.0, "held_out": {2}, "seconds": {0}}}\n'
    log.write_text("".join(row.format(500 * i, 500 * i * 64 * 128, 4 - i / 100) for i in range(1, 41)))

    card = nano_card.write_card(tmp_path, log, seed=3).read_text()
    assert "--steps 20000 --batch 64 --seed 3\n" in card and "163,840,000 tokens seen" in card
    curve = [line for line in card.splitlines() if line.endswith("000 |") or line.endswith("500 |")]
    assert len(curve) == 12 and curve[0].startswith("| 500 |") and curve[-1].startswith("| 20,000 |")
    assert f"| held out | 12 | {sum(len(text.encode()) for _, text in some['held-out']):,} |" in card
    assert "| nano | held out | 8.3" in card, "an untrained model's loss is that of the uniform distribution, ln 4096"
    assert "float16" in card and "PSF-2.0" in card and "`__future__`" in card
    with pytest.raises(TiltmeterError, match=r"no config\.json"):
        nano_card.write_card(tmp_path / "absent", log, seed=3)


def test_comparable_sample_has_no_tests_and_no_optional_packages():
    train = [source(name, 1) for name in ("ast", "csv", "heapq", "test.test_ast", "tkinter.ttk")]
    assert {module.name for module in nano_card.comparable_sample(train, 5, 0)} == {"ast", "csv", "heapq"}
    assert len(nano_card.comparable_sample(train, 2, 0)) == 2
