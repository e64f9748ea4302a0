"""SAE objects: each kind is read rightly, checked on real activations, and identified by what it computes."""

import json
import linecache
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch.nn.functional import dropout

import tiltmeter as tm
from small_saes import LATENTS, random_sae
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.affine import AffineSAE
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.objects import OwnSAE, read_object
from tiltmeter.saes.sae import LinearSAE
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import WIDTH, tiny

SMALL = {"site": "resid_pre:1", "path": tm.Straight(lengths=(0, 1)), "sequences": 4}
TOKENS = token_set(sequences=8)


@cache
def model():
    return SplitModel(tiny("gpt2")).measured_in("centred")


@cache
def activations():
    return model().activation(TOKENS.ids, model().site("resid_pre:1")).flatten(0, 1)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weights():
    """Of an SAE of which some latents fire at each activation."""
    return {
        "W_enc": draw(WIDTH, LATENTS) / WIDTH**0.5,
        "b_enc": draw(LATENTS, seed=1) / 4,
        "W_dec": draw(LATENTS, WIDTH, seed=2) / 4,
        "b_dec": draw(WIDTH, seed=3) / 2,
    }


def plan(given, *directions, **changes):
    wanted = SMALL | {"directions": directions or ("sae-error",), "saes": {"mine": given}} | changes
    return make_plan(Sweep(**wanted), model(), TOKENS)


def place(given, *directions):
    return plan(given, *directions).saes["mine"].sae


def refused(given, *directions):
    with pytest.raises(TiltmeterError) as caught:
        plan(given, *directions)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def assert_gives(sae, latents, reconstruction):
    x = activations()
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(sae.encode(x), latents, check_dtype=False, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae.decode(sae.encode(x), like=x), reconstruction, check_dtype=False, atol=1e-5, rtol=1e-5
    )


class Module(torch.nn.Module):
    """Four weights, and the usual functions; b_dec is not subtracted."""

    def __init__(self):
        super().__init__()
        for name, weight in weights().items():
            self.register_parameter(name, torch.nn.Parameter(weight))

    def pre(self, x):
        return x @ self.W_enc + self.b_enc

    def encode(self, x):
        return self.pre(x).relu()

    def decode(self, latents):
        return latents @ self.W_dec + self.b_dec


SAID = partial(tm.wrap_sae, apply_b_dec_to_input=False)


class Threes(Module):
    def encode(self, x):
        pre = self.pre(x).relu()
        return torch.zeros_like(pre).scatter(-1, (top := pre.topk(3, -1)).indices, top.values)


class Squares(Module):
    def encode(self, x):
        return self.pre(x).relu().square()


def naive(subtract=False):
    w, x = {name: weight.double() for name, weight in weights().items()}, activations()
    latents = ((x - w["b_dec"] if subtract else x) @ w["W_enc"] + w["b_enc"]).relu()
    return latents, latents @ w["W_dec"] + w["b_dec"]


def squared():
    latents = naive()[0].square()
    return latents, latents @ weights()["W_dec"].double() + weights()["b_dec"].double()


# An SAE of tiltmeter


def test_an_sae_of_tiltmeter_keeps_its_hash_as_long_as_it_is_unchanged():
    for convention in (Convention(), Convention(False), Convention(k=3), Convention(normalisation="layer_norm")):
        sae = linear_sae("a", weights(), convention, Facts())
        assert place(sae).about == sae.about
        assert plan(sae.to(torch.device("cpu"), torch.float64)).saes["mine"].sae.about == sae.about
    threshold = linear_sae("a", weights() | {"threshold": torch.tensor(0.5)}, Convention(False), Facts())
    assert read_object("mine", threshold).sha256 == threshold.about.sha256
    changed = [
        replace(sae, W_dec=sae.W_dec * 2),
        replace(sae, activation=torch.nn.functional.softplus),
        replace(sae, normalisation="none"),
        replace(sae, input_bias=sae.b_dec / 2),
        *(
            AffineSAE(sae.about, sae, shift, scale)
            for shift, scale in ((sae.b_dec, 2.0), (sae.b_dec, 3.0), (-sae.b_dec, 2.0))
        ),
    ]
    hashes = {read_object("mine", one).sha256 for one in [sae, *changed]}
    assert len(hashes) == len(changed) + 1
    assert place(changed[0]).about.sha256 == read_object("mine", changed[0]).sha256 != sae.about.sha256


def test_an_sae_of_another_site_model_or_stream_is_refused():
    for facts, sentence in (
        ({"hook_name": "blocks.2.hook_resid_pre"}, "belongs to blocks.2.hook_resid_pre, not to"),
        ({"processing": "raw"}, "expects the raw residual stream"),
    ):
        assert sentence in refused(linear_sae("a", weights(), Convention(), Facts(**facts)))
    assert "belongs to blocks.2.hook_resid_pre, not to" in refused(SAID(Module(), hook_name="blocks.2.hook_resid_pre"))
    assert "has width 8, but" in refused(random_sae(8, 5))


# Objects with weights


def test_a_module_is_rebuilt_from_its_weights_and_not_changed():
    module = Module().double().train()
    before, keys = deepcopy(module.state_dict()), set(vars(module))
    sweep = Sweep(**SMALL, directions=("sae-error",), saes={"mine": SAID(module)})
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert module.training and set(vars(module)) == keys and module.W_enc.requires_grad
    module.W_enc.data += 1  # the sweep has a copy
    sae = make_plan(sweep, model(), TOKENS).saes["mine"].sae
    assert isinstance(sae, LinearSAE)
    assert_gives(sae, *naive())
    assert sae.about.sha256 == linear_sae("", weights(), Convention(False), Facts()).about.sha256


def test_a_module_that_encodes_in_another_way_is_refused_with_the_convention_that_agrees():
    sentence = refused(Module())
    assert "mine encodes or decodes in another way than its weights say: on 64 activations" in sentence
    assert "they would agree with apply_b_dec_to_input=False: say so with tm.wrap_sae" in sentence
    assert "they would agree with activation='topk', k=3, apply_b_dec_to_input=False" in refused(Threes())
    assert "they would agree with activation='topk', k=3:" in refused(SAID(Threes()))
    place(SAID(Threes(), k=3))
    assert "no other convention agrees" in refused(Squares())


class Doubled(Module):
    def decode(self, latents):
        return 2 * super().decode(latents)


def test_a_module_that_decodes_in_another_way_is_refused():
    sentence = refused(SAID(Doubled()))
    assert "reconstructions differ by" in sentence and "latents" not in sentence


def test_a_version_makes_its_own_functions_be_used():
    sae = place(tm.wrap_sae(Squares(), version="1"), "sae-error", "sae-feature")
    assert isinstance(sae, OwnSAE)
    assert_gives(sae, *squared())
    assert torch.equal(sae.decoder.float(), weights()["W_dec"])
    assert "Both a version and k were given" in refusal_of(lambda: tm.wrap_sae(Squares(), version="1", k=3))


def refusal_of(function):
    with pytest.raises(TiltmeterError) as caught:
        function()
    return str(caught.value)


class Configured(Module):
    """Says itself how it is used."""

    def __init__(self):
        super().__init__()
        self.cfg = {"apply_b_dec_to_input": False, "k": 3, "hook_name": "blocks.1.hook_resid_pre"}

    encode = Threes.encode


def test_what_an_object_says_itself_need_not_be_said():
    about = place(Configured()).about
    assert (about.architecture, about.hook_name) == ("topk", "blocks.1.hook_resid_pre")


class Linears(torch.nn.Module):
    """Names of dictionary_learning's AutoEncoder, whose b_dec is subtracted."""

    def __init__(self):
        super().__init__()
        w = weights()
        self.encoder, self.decoder = torch.nn.Linear(WIDTH, LATENTS), torch.nn.Linear(LATENTS, WIDTH, bias=False)
        self.encoder.weight.data, self.encoder.bias.data = w["W_enc"].T.contiguous(), w["b_enc"]
        self.decoder.weight.data, self.bias = w["W_dec"].T.contiguous(), torch.nn.Parameter(w["b_dec"])

    def encode(self, x):
        return self.encoder(x - self.bias).relu()

    def decode(self, latents):
        return self.decoder(latents) + self.bias


def test_weights_under_the_names_of_another_library():
    sae = place(Linears())
    assert isinstance(sae, LinearSAE)
    assert_gives(sae, *naive(subtract=True))


class Holder(torch.nn.Module):
    """Weights, kept in several ways, and no functions."""

    def __init__(self):
        super().__init__()
        w = weights()
        self.W_enc, self.b_enc = torch.nn.Parameter(w["W_enc"]), w["b_enc"].double()
        self.register_buffer("W_dec", w["W_dec"], persistent=False)
        self.b_dec = w["b_dec"].numpy()


def test_weights_without_functions_need_to_say_how_they_are_used():
    assert "mine does not say apply_b_dec_to_input and activation, and has no encode and decode" in refused(Holder())
    assert_gives(place(tm.wrap_sae(Holder(), apply_b_dec_to_input=True, activation="relu")), *naive(subtract=True))
    assert "is a top-k SAE that does not say its k" in refused(
        tm.wrap_sae(Holder(), apply_b_dec_to_input=True, activation="topk")
    )


# Objects with functions alone


class Own(torch.nn.Module):
    """Functions, and matrices under names that no library uses."""

    limit = None

    def __init__(self):
        super().__init__()
        self.inner = Module()
        self.places = torch.nn.Dropout(0.5)

    @torch.no_grad()
    def encode(self, x):
        return self.places(self.inner.encode(x).square())

    def decode(self, latents):
        return self.inner.decode(latents)


ROWS = "needs decoder rows, and no matrix of mine was found"


def test_functions_alone_work_for_directions_without_rows():
    sae = place(Own(), "sae-error", "latent-doubling", "sae-error-linear")
    assert_gives(sae, *squared())
    for direction in ("sae-feature", "minus-sae-feature-active", "synthetic-structured-difference"):
        assert refused(Own(), direction).startswith(f"{direction}:mine {ROWS}")
    with pytest.raises(TiltmeterError, match=rf"synthetic-structured:mine {ROWS}"):
        plan(Own(), "isotropic", base="synthetic-structured:mine")


def test_decoder_rows_are_found_or_given_and_must_be_those_that_decode_adds():
    for matrix in (weights()["W_dec"], weights()["W_dec"].T):
        assert torch.equal(place(tm.wrap_sae(Own(), decoder=matrix), "sae-feature").decoder.float(), weights()["W_dec"])
    assert "is not its decoder" in refused(tm.wrap_sae(Own(), decoder=weights()["W_dec"].flip(0)))
    own = Own()
    own.W_dec = weights()["W_dec"]
    place(own, "sae-feature")
    own.W_dec = 2 * own.W_dec  # not its rows: what is found by name is not trusted
    assert ROWS in refused(own, "sae-feature")


class Stateful(Own):
    """Like SAELens's layer_norm: decode uses what encode stored."""

    def encode(self, x):
        self.scale = x.std(-1, keepdim=True)
        return super().encode(x)

    def decode(self, latents):
        return super().decode(latents) * self.scale


class LastMean(Stateful):
    """Its state has no shape that would give it away."""

    def encode(self, x):
        super().encode(x)
        self.scale = self.scale.mean()
        return Own.encode(self, x)


class Random(Own):
    def encode(self, x):
        return dropout(super().encode(x), 0.5, training=True)


class Signed(Own):
    def encode(self, x):
        return self.inner.pre(x)


class OfBatch(Own):
    def encode(self, x):
        latents = super().encode(x)
        return latents * (latents >= latents.flatten().topk(3 * len(x)).values[-1])


class Wider(Own):
    def decode(self, latents):
        return torch.cat([super().decode(latents)] * 2, -1)


class Infinite(Own):
    def decode(self, latents):
        return super().decode(latents) / 0


class InPlace(Own):
    def encode(self, x):
        x -= self.inner.b_dec
        return super().encode(x)


class Pair(Own):
    def encode(self, x):
        return super().encode(x), None


class Broken(Own):
    def encode(self, x):
        raise ValueError("no such luck")


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (Stateful, "mine keeps something from one call to the next"),
        (LastMean, "mine keeps something from one call to the next"),
        (Random, "mine returned two different values for the same activations"),
        (Signed, r"mine has negative latents \(down to -"),
        (OfBatch, "mine gives a token other values alone than among 64"),
        (Wider, f"The SAE mine has width {2 * WIDTH}, but activations at blocks.1.hook_resid_pre have width {WIDTH}"),
        (Infinite, "The decode of mine returned NaN or an infinity"),
        (InPlace, "mine changes the tensors that it is given"),
        (Pair, "The encode of mine returned a value of type tuple"),
        (Broken, "The encode of mine raised ValueError: no such luck"),
    ],
)
def test_functions_that_are_not_those_of_an_sae_are_refused(cls, sentence):
    place(Own())
    with pytest.raises(TiltmeterError, match=sentence):
        place(cls())


class Scales(Own):
    """Scales activations where it is called, and not where it encodes."""

    def forward(self, x):
        norm = x.norm(dim=-1, keepdim=True)
        return self.decode(self.encode(x / norm)) * norm


class ScalesWeights(Module):
    def forward(self, x):
        return (x @ self.W_enc + self.b_enc).float().relu() @ self.W_dec


class Called(Holder):
    __call__ = ScalesWeights.forward


class Whole(Own):
    def forward(self, x):
        latents = self.encode(x)
        return {"latents": latents, "x_hat": self.decode(latents)}


class Loss(Own):
    def forward(self, x, weight):
        return weight * x


def test_a_forward_that_does_more_than_encode_and_decode_is_refused_unless_a_version_is_given():
    for given in (Scales(), SAID(ScalesWeights())):
        assert "The forward of mine gives another reconstruction than its encode and decode" in refused(given)
    said = refused(SAID(Called(), activation="relu"))
    assert "than its weights, used as is said" in said and "version" not in said
    for given in (tm.wrap_sae(Scales(), version="1"), Whole(), Loss()):
        assert_gives(place(given), *squared())


# Identity


class Plain:
    """No module, and no tensor."""

    def encode(self, x):
        return x.relu()

    def decode(self, latents):
        return latents + 0.1


def closing(factor):
    class Closure(Own):
        def decode(self, latents):
            return super().decode(latents) * factor

    return Closure()


def with_attribute():
    own = Own()
    own.function = lambda x: x
    return own


def executed(file, factor=2):
    """An object of a class that stands in no file, as in a notebook, whose cells can be read as `file`."""
    source = f"class Made(Own):\n    def decode(self, latents):\n        return {factor} * super().decode(latents)\n"
    if file != "<unread>":
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names = {"Own": Own, "__name__": "no_file"}
    exec(compile(source, file, "exec"), names)
    return names["Made"]()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Plain(), "no tensors are found in it"),
        (closing(2.0), "decode of Closure uses variables of the function that it was made in"),
        (with_attribute(), "its function is a function of its own"),
        (executed("<unread>"), "the source of Made cannot be read"),
    ],
)
def test_what_cannot_be_hashed_needs_a_version(given, why):
    sentence = refused(given)
    assert why in sentence and 'tm.wrap_sae(object, version="...")' in sentence
    one, other = (place(tm.wrap_sae(given, version=version)).about.sha256 for version in ("1", "2"))
    assert one != other


def test_the_hash_sees_tensors_settings_and_source():
    def sha(given):
        return read_object("mine", given).sha256

    class Other(Own):
        def decode(self, latents):
            return super().decode(latents)

    moved, limited = Own(), Own()
    moved.inner.b_dec.data[0] += 1
    limited.limit = 3
    assert sha(Own()) == sha(Own())
    assert len({sha(one) for one in (Own(), Other(), moved, limited)}) == 4
    cells = [executed(f"<cell {index}>", factor) for index, factor in enumerate((2, 2, 3))]
    assert sha(cells[0]) == sha(cells[1]) != sha(cells[2])
    hidden = Own()
    hidden.register_buffer("shift", torch.ones(1), persistent=False)  # not in its state dict
    assert sha(hidden) != sha(Own())


class Keeper:
    """No module: what it holds stands in attributes of all kinds."""

    __slots__ = ("__dict__", "slot")

    def __init__(self, **held):
        self.bias = torch.zeros(1)
        self.slot = held.pop("slot", None)
        self.__dict__ |= held

    encode, decode = Plain.encode, Plain.decode


class Helper:
    def __init__(self, value):
        self.value = value


def hooked(factor):
    own = Own()
    own.inner.register_forward_hook(lambda _, __, y: factor * y)
    return own


HELD = [torch.ones(1), np.ones(1), {1}, Helper(1), torch.nn.Threshold(1, 0), partial(torch.clamp, min=1), np.float32(1)]
OTHER = [torch.zeros(1), np.zeros(1), {2}, Helper(2), torch.nn.Threshold(2, 0), partial(torch.clamp, min=2), 2.0]


@pytest.mark.parametrize(("one", "other"), zip(HELD, OTHER, strict=True))
def test_the_hash_sees_what_attributes_and_containers_hold(one, other):
    for hold in (lambda x: {"a": x}, lambda x: {"a": [x]}, lambda x: {"a": {"b": (0, x)}}, lambda x: {"slot": x}):
        first, same, second = (read_object("mine", Keeper(**hold(value))).sha256 for value in (one, one, other))
        assert first == same != second


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Keeper(a=[lambda x: x]), "its a.0 is a function of its own"),
        (Keeper(a=partial(lambda x: x)), "its a.func is a function of its own"),
        (Keeper(a=object()), "its a is of type object"),
        (hooked(2), "inner has hooks"),
    ],
)
def test_attributes_that_cannot_be_hashed_need_a_version(given, why):
    with pytest.raises(TiltmeterError, match=f"cannot be hashed, .*: {why}; give it a version"):
        read_object("mine", given)


@dataclass(frozen=True)
class OfItsOwn:
    """An SAE by tiltmeter's interface, which states its own hash."""

    about: object
    inner: LinearSAE

    decoder = property(lambda self: self.inner.decoder)

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, latents, like=None):
        return self.inner.decode(latents, like=like)

    def to(self, device, dtype):
        return replace(self, inner=self.inner.to(device, dtype))


def test_a_class_with_tiltmeters_interface_states_its_own_hash():
    inner = linear_sae("a", weights(), Convention(), Facts())
    sae = place(OfItsOwn(replace(inner.about, sha256="mine"), inner))
    assert sae.about.sha256 == "mine"
    assert_gives(sae, *naive(subtract=True))
    assert "says itself how it is used; give it as it is" in refused(tm.wrap_sae(inner, k=3))


# The configuration


@pytest.mark.parametrize(
    ("saes", "sentence"),
    [
        (
            Module(),
            "saes= was of type Module; give names, as (NAME,), or objects with names of your own, as {'mine': sae}.",
        ),
        ((Module(),), "saes= was of type tuple; give names"),
        ("nano:x", "saes= was the text 'nano:x'; give a tuple of names: saes=('nano:x',)."),
        ({"": Module()}, "has the name ''; expected a text of one line that is not empty"),
        ({3: Module()}, "has the name 3; expected a text"),
        ({"mine": Module}, "mine is the class Module; give an object of it"),
        ({"mine": torch.nn.Linear(3, 4)}, "mine is of type Linear, which is no SAE: it has neither weights"),
        ({"mine": Module().to("meta")}, "mine has no values in W_enc, which is on the device meta"),
        ({"mine": None}, "mine is of type NoneType, which is no SAE"),
    ],
)
def test_what_is_no_sae_is_refused_in_a_sentence(saes, sentence):
    assert sentence in refusal_of(lambda: Sweep(**SMALL, saes=saes))


def test_a_configuration_is_dumped_with_names_and_hashes():
    sae = linear_sae("a", weights(), Convention(), Facts())
    sweep = Sweep(**SMALL, saes={"mine": sae, "theirs": "nano:local-3-l0-31"})
    expected = {"mine": sae.about.sha256, "theirs": "nano:local-3-l0-31"}
    assert sweep.model_dump()["saes"] == json.loads(sweep.model_dump_json())["saes"] == expected
    assert sweep == Sweep(**SMALL, saes={"mine": deepcopy(sae), "theirs": "nano:local-3-l0-31"})
    assert sweep != Sweep(**SMALL, saes={"mine": replace(sae, b_dec=sae.b_dec + 1), "theirs": "nano:local-3-l0-31"})
    assert Sweep(**SMALL, saes=["a", "b"]).model_dump()["saes"] == ("a", "b")


def test_names_in_a_mapping_are_loaded_and_patterns_match_one():
    nothing = {"directions": ("sae-error:mine",)}
    given = linear_sae("a", weights(), Convention(), Facts())
    found = plan(given, **nothing, saes={"mine": given, "theirs": "no/such/file"}).saes
    assert list(found) == ["mine"]  # what no direction uses is not loaded
    with pytest.raises(TiltmeterError, match="There is no SAE 'no/such/file'"):
        plan(given, saes={"mine": given, "theirs": "no/such/file"})
    with pytest.raises(TiltmeterError, match="The SAEs mine and again have the same weights"):
        plan(given, saes={"mine": given, "again": given})
    with pytest.raises(TiltmeterError, match="The SAE mine was given, but no direction or base uses an SAE"):
        plan(given, "isotropic")
