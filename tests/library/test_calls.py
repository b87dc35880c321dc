"""What a program asks of a model: shapes, bytes and floats, gradients, and errors of one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from vqvae_lightning import AE, VAE, VQVAE, CodePrior, ConfigError, load, load_experiment, to_float
from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.training.runs import Run

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), dtype=np.uint8)


@pytest.fixture
def vqvae(place):
    return load(place / "runs" / "vqvae", VQVAE)


@pytest.fixture
def prior(place):
    return load(place / "runs" / "prior", CodePrior)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new tensors of this process have that dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("kind", ["ae", "vae", "vqvae", "prior"])
def test_a_run_is_loaded_and_called_the_same_under_another_default_dtype(place, kind):
    def results() -> list[torch.Tensor]:
        model = load(place / "runs" / kind)
        torch.manual_seed(0)
        if kind == "prior":
            return [model(PIXELS, label=3), model.sample(2, top_p=0.9)]
        latents = model.encode(PIXELS)
        return [model(PIXELS), latents, model.decode(latents), model.net.sample(2)]

    usual = results()
    with default_dtype(torch.float64):
        again = results()
        assert torch.get_default_dtype() == torch.float64
    assert [x.dtype for x in again] == [x.dtype for x in usual]
    assert all(map(torch.equal, again, usual))


class TestLoad:
    @pytest.mark.parametrize(("kind", "cls"), [("ae", AE), ("vae", VAE), ("vqvae", VQVAE)])
    def test_a_run_becomes_the_module_of_its_kind_in_evaluation_mode(self, place, kind, cls):
        folder = place / "runs" / kind
        for found in (load(folder), load(str(folder)), load(Run(folder), cls)):
            assert type(found) is cls
            assert not found.training

    def test_another_kind_than_the_one_wanted_is_refused(self, place):
        with pytest.raises(ConfigError, match=r"holds a model of class VQVAE, wanted VAE"):
            load(place / "runs" / "vqvae", VAE)

    def test_a_place_without_a_model_is_one_line(self, tmp_path):
        for path, line in (
            (tmp_path / "nothing", "there is no"),
            (tmp_path, "is no run folder"),
        ):
            with pytest.raises(ValueError, match=line):
                load(path)

    def test_a_file_that_could_run_code_is_refused(self, tmp_path):
        torch.save({"hyper_parameters": {"kind": print}}, tmp_path / "bad.ckpt")
        with pytest.raises(ValueError, match="more than plain types"):
            load(tmp_path / "bad.ckpt")

    def test_a_damaged_file_of_a_run_is_refused(self, place, tmp_path):
        path = tmp_path / "best.ckpt"
        path.write_bytes((place / "runs" / "vqvae" / "checkpoints" / "best.ckpt").read_bytes())
        assert type(load(path)) is VQVAE  # without a hash there is nothing to compare with
        (tmp_path / "best.ckpt.sha256").write_text("0" * 64)
        with pytest.raises(ValueError, match="is damaged"):
            load(path)


class TestEncodeAndDecode:
    def test_bytes_and_floats_of_numpy_and_torch_have_the_same_codes(self, vqvae):
        floats = to_float(torch.from_numpy(PIXELS))
        given = (PIXELS, torch.from_numpy(PIXELS), floats, floats.numpy(), floats.double().numpy())
        first, *others = [vqvae.encode(images) for images in given]
        assert first.shape == (5, 7, 7)
        assert first.dtype == torch.int64
        assert all(torch.equal(first, codes) for codes in others)

    def test_decode_takes_codes_as_a_grid_or_a_sequence_and_z(self, vqvae):
        codes = vqvae.encode(PIXELS)
        images = vqvae.decode(codes)
        assert images.shape == (5, 1, 28, 28)
        assert images.abs().max() <= 1
        for same in (codes.flatten(1), codes.numpy().astype(np.int16), vqvae.latents(PIXELS).z):
            assert torch.equal(vqvae.decode(same), images)
        assert torch.equal(vqvae(PIXELS), images)

    @pytest.mark.parametrize("kind", ["ae", "vae"])
    def test_without_codes_encode_gives_the_mean_of_q(self, place, kind):
        model = load(place / "runs" / kind)
        z = model.encode(PIXELS)
        assert torch.equal(z, model.latents(PIXELS).mean)
        assert torch.equal(z, model.encode(PIXELS))
        assert torch.equal(model.decode(z), model(PIXELS))

    def test_what_comes_back_can_stand_in_another_graph(self, vqvae, prior):
        embedding = torch.nn.Embedding(vqvae.net.layout.codebook_size, 3)
        for codes in (vqvae.encode(PIXELS), prior.tokenizer.encode(to_float(torch.tensor(PIXELS)))):
            embedding(codes).sum().backward()
        weight = torch.ones((), requires_grad=True)
        (prior.sample(2) * weight).sum().backward()
        assert weight.grad is not None

    @pytest.mark.parametrize("kind", ["ae", "vae", "vqvae"])
    def test_gradients_reach_images_and_latents(self, place, kind):
        model = load(place / "runs" / kind)
        x = to_float(torch.from_numpy(PIXELS)).requires_grad_()
        model(x).sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        z = model.latents(PIXELS).mean.detach().requires_grad_()
        model.decode(z).sum().backward()
        assert z.grad is not None
        assert z.grad.abs().sum() > 0

    def test_z_of_a_quantizer_in_evaluation_has_the_values_of_its_codes(self, vqvae):
        x = to_float(torch.from_numpy(PIXELS)).requires_grad_()
        latent = vqvae.latents(x)
        assert torch.equal(latent.z, vqvae.net.bottleneck.codes_to_latents(latent.codes))

    def test_encoding_in_training_mode_teaches_a_codebook_nothing(self, vqvae):
        vqvae.train()
        vqvae.encode(PIXELS)
        assert vqvae.training
        assert vqvae.net.training
        assert vqvae.net.bottleneck.statistics() == []
        vqvae.latents(PIXELS)
        assert vqvae.net.bottleneck.statistics() != []

    def test_an_array_that_is_turned_round_is_read_as_it_looks(self, vqvae):
        turned = PIXELS[:, :, ::-1, ::-1]
        codes = vqvae.encode(turned)
        assert torch.equal(codes, vqvae.encode(turned.copy()))
        assert torch.equal(vqvae.decode(codes.numpy()[:, ::-1]), vqvae.decode(codes.flip(1)))

    @pytest.mark.parametrize(
        ("images", "line"),
        [
            (PIXELS[0], r"images: got shape \(1, 28, 28\), wanted \(N, 1, 28, 28\)"),
            (PIXELS[:, :, :9], r"images: got shape \(5, 1, 9, 28\), wanted"),
            (PIXELS.astype(np.int64), r"images: got torch.int64, wanted torch.uint8, or floats"),
            (PIXELS.astype(np.float32), r"images: got floats from 0 to 255, wanted uint8, or"),
            (np.full(PIXELS.shape, np.nan), r"images: got floats from nan to nan, wanted"),
            (PIXELS.astype(str), r"images: got an array of <U\d+, wanted numbers"),
            (torch.zeros(5, 1, 28, 28).to_sparse(), r"images: got a tensor of layout torch.sparse"),
            (PIXELS.tolist(), r"images: got list, wanted a torch tensor or a numpy array"),
        ],
    )
    def test_images_that_do_not_fit_are_one_line(self, vqvae, images, line):
        with pytest.raises(ValueError, match=f"^{line}") as error:
            vqvae.encode(images)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("latents", "line"),
        [
            (np.zeros((2, 3), int), r"codes: got shape \(2, 3\), wanted \(N, 7, 7\) or \(N, 49\)"),
            (np.full((2, 49), 99), r"codes: got values 99 to 99, wanted 0 to 15"),
            (np.zeros((2, 49), bool), r"codes: got torch.bool, wanted whole numbers"),
            (np.zeros((2, 49)), r"latents: got torch.float64 of shape \(2, 49\), wanted floats"),
        ],
    )
    def test_codes_that_do_not_fit_are_one_line(self, vqvae, latents, line):
        with pytest.raises(ValueError, match=f"^{line}"):
            vqvae.decode(latents)


class TestSample:
    def test_a_label_is_one_class_or_one_for_each_and_else_drawn(self, prior, monkeypatch):
        asked = []
        real = prior.net.generate
        monkeypatch.setattr(
            prior.net, "generate", lambda n, labels, **k: asked.append(labels) or real(n, labels)
        )
        assert prior.sample(3, label=2).shape == (3, 1, 28, 28)
        prior.sample(3, label=[0, 1, 2])
        torch.manual_seed(0)
        prior.sample(200)
        assert [labels.tolist() for labels in asked[:2]] == [[2, 2, 2], [0, 1, 2]]
        assert asked[2].unique().numel() == prior.classes

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            ({"n": 0}, "n: got 0"),
            ({"n": 2, "label": 10}, "label: got 10, wanted 0 to 9"),
            ({"n": 2, "label": [1, 2, 3]}, "label: got torch.int64 of shape"),
            ({"n": 2, "label": "three"}, "label: got 'three', wanted whole numbers"),
            ({"n": 2, "label": 1.5}, "label: got torch.float32"),
            ({"n": "two"}, "n: got 'two'"),
            ({"n": True}, "n: got True"),
            ({"n": 2, "temperature": -1}, "temperature: got -1"),
            ({"n": 2, "temperature": "hot"}, "temperature: got 'hot', wanted a number"),
            ({"n": 2, "top_k": 1.5}, "top_k: got 1.5, wanted a whole number"),
            ({"n": 2, "guidance": None}, "guidance: got None, wanted a number"),
            ({"n": 2, "known": 3}, "known: got int, wanted a pair"),
            ({"n": 2, "steps": 4}, "steps: got 4, but this prior has temperature, top_k, top_p"),
            ({"n": 2, "known": (torch.zeros(2, 7, 7).long(), torch.ones(2, 7, 7))}, "known: got"),
        ],
    )
    def test_what_cannot_be_drawn_is_one_line(self, prior, given, line):
        with pytest.raises(ValueError, match=f"^{line}"):
            prior.sample(**given)

    def test_a_number_of_numpy_is_a_number_of_samples(self, prior):
        assert prior.sample(np.int64(2), temperature=np.float32(0.5)).shape == (2, 1, 28, 28)

    def test_known_codes_are_grids_or_sequences(self, prior):
        codes = torch.randint(prior.tokenizer.codebook_size, (2, 7, 7))
        images = prior.tokenizer.decode(codes.flatten(1))
        for known in ((codes, codes >= 0), (codes.flatten(1), codes.flatten(1) >= 0)):
            assert torch.equal(prior.sample(2, label=3, known=known), images)

    @pytest.mark.parametrize("order", ["halton", "confidence", "random"])
    def test_a_masked_prior_draws_the_same_under_another_default_dtype(self, order):
        layout = CodeLayout.of_shape((2, 2), 16)
        config = load_experiment(None, ["kind=prior", "model.network.name=masked"]).model
        net = build_prior(config, layout, 10).eval()

        def drawn() -> torch.Tensor:
            torch.manual_seed(0)
            return net.generate(4, torch.arange(4), order=order)

        usual = drawn()
        with default_dtype(torch.float64):
            assert torch.equal(drawn(), usual)

    def test_only_a_model_with_a_density_can_be_drawn_from(self, place):
        for kind in ("vae", "vqvae"):
            assert load(place / "runs" / kind).sample(3).shape == (3, 1, 28, 28)
        with pytest.raises(ValueError, match=r"^sample: a model of kind ae has no p\(z\)"):
            load(place / "runs" / "ae").sample(3)

    def test_a_prior_charges_images_what_it_charges_their_codes(self, prior):
        codes = prior.tokenizer.encode(to_float(torch.from_numpy(PIXELS)))
        nats = prior(codes, label=3)
        assert nats.shape == (5,)
        assert torch.equal(prior(PIXELS, label=3), nats)
        assert torch.equal(prior(codes.view(5, 7, 7), label=[3] * 5), nats)
        with pytest.raises(ValueError, match="class-conditional"):
            prior(codes)
