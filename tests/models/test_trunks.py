"""The trunks by themselves: they take every size of image that they say they take, and name the
setting where they do not.
"""

from typing import Any

import pytest
import torch

from vqvae_lightning.config import ConfigError
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.parts import TRUNKS
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.models.trunks.residual import ResidualTrunk, SelfAttention, group_norm

# halvings → settings of a small trunk. A new trunk costs one line here.
SMALL = {
    "conv": lambda halvings: ConvTrunk.Config(8, 4, 1, halvings),
    "residual": lambda halvings: ResidualTrunk.Config(8, [1] * halvings + [2], 1),
}


@pytest.fixture(params=TRUNKS)
def name(request):
    return request.param


def build(name, shape, halvings=2, vector=False):
    member: Any = TRUNKS[name]
    return member(SMALL[name](halvings), shape, vector)


def images(shape, n=3):
    return (2 * torch.rand(n, *shape) - 1).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("vector", [False, True], ids=["grid", "vector"])
class TestContract:
    @pytest.mark.parametrize(
        ("shape", "halvings"),
        [((1, 28, 28), 2), ((3, 48, 80), 2), ((3, 24, 40), 3), ((1, 80, 48), 4), ((3, 32, 96), 5)],
        ids=str,
    )
    def test_an_image_becomes_a_grid_and_a_grid_an_image(self, name, shape, halvings, vector):
        trunk = build(name, shape, halvings, vector)
        grid = (shape[1] // 2**halvings, shape[2] // 2**halvings)
        assert trunk.grid == ((1, 1) if vector else grid)
        h = trunk.encoder(6)(images(shape))
        assert h.shape == (3, 6, *trunk.grid)
        assert trunk.decoder(5, 2)(torch.randn(3, 5, *trunk.grid)).shape == (3, 2, *shape[1:])

    def test_every_parameter_has_a_gradient(self, name, vector):
        trunk = build(name, (3, 16, 24), vector=vector)
        encoder, decoder = trunk.encoder(6), trunk.decoder(6, 3)
        decoder(encoder(images((3, 16, 24)))).square().sum().backward()
        for network in (encoder, decoder):
            for key, parameter in network.named_parameters():
                assert parameter.grad is not None, key
                assert parameter.grad.abs().max() > 0, key

    def test_a_row_does_not_depend_on_the_rows_beside_it(self, name, vector):
        """In training mode too: nothing is averaged over a batch."""
        trunk = build(name, (3, 16, 24), vector=vector)
        encoder, decoder = trunk.encoder(6).double(), trunk.decoder(6, 3).double()
        x = images((3, 16, 24), n=4).double()
        h = encoder(x)
        decoded = decoder(h)
        for i in range(4):
            torch.testing.assert_close(encoder(x[i : i + 1]), h[i : i + 1])
            torch.testing.assert_close(decoder(h[i : i + 1]), decoded[i : i + 1])

    def test_channels_last_stays_channels_last(self, name, vector):
        trunk = build(name, (3, 16, 24), vector=vector)
        last = torch.channels_last
        encoder = trunk.encoder(6).to(memory_format=last)
        assert encoder(images((3, 16, 24))).is_contiguous(memory_format=last)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (3, 20, 32)], ids=str)
def test_sides_that_cannot_be_halved_are_one_line_that_names_a_setting(name, shape):
    with pytest.raises(ValueError, match=r"model\.trunk") as error:
        build(name, shape, halvings=3)
    setting = str(error.value).partition(":")[0].rpartition(".")[2]
    assert hasattr(SMALL[name](3), setting)
    assert "\n" not in str(error.value)
    size = f"{shape[1]}x{shape[2]}"
    assert f"3 halvings need sides divisible by 8, got images of {size}" in str(error.value)


class TestConv:
    @pytest.mark.parametrize("vector", [False, True], ids=["grid", "vector"])
    @pytest.mark.parametrize(
        ("halvings", "grid"), [([6, 2], (1, 16)), ([0, 3], (64, 8)), ([3, 1], (8, 32))]
    )
    def test_height_and_width_are_halved_apart(self, halvings, grid, vector):
        shape = (1, 64, 64)
        trunk = ConvTrunk(ConvTrunk.Config(8, 4, 1, halvings), shape, vector)
        assert trunk.grid == ((1, 1) if vector else grid)
        h = trunk.encoder(6)(images(shape))
        assert h.shape == (3, 6, *trunk.grid)
        assert trunk.decoder(6, 2)(h).shape == (3, 2, 64, 64)

    def test_one_number_is_the_network_of_two_equal_ones(self):
        networks = []
        for halvings in (2, [2, 2]):
            torch.manual_seed(0)
            trunk = ConvTrunk(ConvTrunk.Config(8, 4, 1, halvings), (1, 8, 12), False)
            networks.append((trunk.encoder(6), trunk.decoder(6, 1)))
        x = images((1, 8, 12))
        (encoder, decoder), (other, other_decoder) = networks
        assert torch.equal(encoder(x), other(x))
        assert torch.equal(decoder(encoder(x)), other_decoder(other(x)))

    def test_a_column_sees_no_more_of_time_than_its_stride_and_the_blocks_around(self):
        """A grid of one row keeps its columns apart: no layer spreads over all of time."""
        trunk = ConvTrunk(ConvTrunk.Config(8, 4, 0, [6, 2]), (1, 64, 64), False)
        encoder = trunk.encoder(6)
        x = images((1, 64, 64), n=1)
        changed = x.clone()
        changed[..., 48:] = 0
        same = (encoder(x) == encoder(changed)).all(1)[0, 0]  # columns
        assert same[:4].all()
        assert not same[12:].any()

    def test_sides_that_cannot_be_halved_apart_are_one_line(self):
        with pytest.raises(ValueError, match=r"\[6, 2\] halvings need sides divisible by 64 and 4"):
            ConvTrunk(ConvTrunk.Config(8, 4, 1, [6, 2]), (1, 32, 64), False)

    @pytest.mark.parametrize("normed", [True, False])
    def test_instance_norm_forgets_the_scale_of_a_channel_of_one_image(self, normed):
        config = ConvTrunk.Config(8, 4, 1, 2, instance_norm=normed)
        encoder: Any = ConvTrunk(config, (1, 16, 16), False).encoder(6)
        x = images((1, 16, 16), n=3).double()
        h = encoder.double()(x)
        assert torch.allclose(encoder(x[1:2]), h[1:2])  # whatever images stand beside it
        first = encoder.layers[0]
        with torch.no_grad():
            first.weight[2] *= 100
            first.bias[2] = first.bias[2] * 100 + 5
        assert torch.allclose(encoder(x), h, rtol=0.01) == normed

    def test_features_of_one_cell_cannot_be_normalized(self):
        with pytest.raises(
            ValueError, match=r"^model\.trunk\.instance_norm: .*fewer downsamples than 3$"
        ):
            ConvTrunk(ConvTrunk.Config(8, 4, 1, 3, instance_norm=True), (1, 8, 8), False)

    @pytest.mark.parametrize("halvings", ["[6]", "[0,0]", "[-1,2]", "[9,1]", "[1,2,3]"])
    def test_numbers_that_halve_nothing_are_one_line(self, halvings):
        with pytest.raises(
            ConfigError, match=r"^model\.trunk\.downsamples: got .*such as \[6, 2\]"
        ):
            load_experiment(None, ["kind=ae", f"model.trunk.downsamples={halvings}"])


class TestResidual:
    @pytest.mark.parametrize("multipliers", ["[]", "[4]", "[1,1,1,1,1,1,1]", "[1,0]", "[-1,2]"])
    def test_multipliers_that_make_no_trunk_are_one_line(self, multipliers):
        chosen = ["kind=ae", "model.trunk.name=residual", f"model.trunk.multipliers={multipliers}"]
        with pytest.raises(ConfigError, match=r"^model\.trunk\.multipliers: got .*wanted 2 to 6"):
            load_experiment(None, chosen)

    def test_a_stage_has_the_width_of_its_multiplier(self):
        config = ResidualTrunk.Config(hidden=4, multipliers=[1, 3, 2], residual_blocks=2)
        assert (config.downsamples, config.widths) == (2, [4, 12, 8])
        trunk = ResidualTrunk(config, (1, 8, 8), False)
        sizes: dict[int, int] = {}
        network: Any = trunk.encoder(5)
        x = images((1, 8, 8))
        for layer in network.layers[:-1]:
            x = layer(x)
            sizes[x.shape[2]] = x.shape[1]
        assert sizes == {8: 4, 4: 12, 2: 8}

    @pytest.mark.parametrize("attention", [True, False])
    def test_attention_stands_on_the_smallest_grid_only_where_asked(self, attention):
        config = ResidualTrunk.Config(4, [1, 2], 1, attention)
        trunk = ResidualTrunk(config, (1, 8, 12), False)
        encoder, decoder = trunk.encoder(4), trunk.decoder(4, 1)
        seen = []
        for module in (*encoder.modules(), *decoder.modules()):
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda _, __, h: seen.append(tuple(h.shape[2:])))
        decoder(encoder(images((1, 8, 12))))
        assert seen == ([(4, 6)] * 2 if attention else [])

    def test_attention_is_that_by_hand(self):
        """Of one head over all positions, softmax(QKᵀ/√C)V."""
        attention = SelfAttention(6).double()
        x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
        rows = attention.queries_keys_values(attention.norm(x)).flatten(2)  # N,3C,h·w
        query, key, value = rows.chunk(3, dim=1)
        weights = (query.transpose(1, 2) @ key / 6**0.5).softmax(2)  # N,h·w,h·w
        found = (value @ weights.transpose(1, 2)).view_as(x)
        torch.testing.assert_close(attention(x), x + attention.project(found))

    @pytest.mark.parametrize("channels", [2, 3, 5, 12, 32, 48, 64, 96, 128, 130, 512])
    def test_groups_divide_any_channels_and_keep_a_value_on_a_grid_of_one(self, channels):
        norm = group_norm(channels)
        assert channels % norm.num_groups == 0
        assert norm.num_groups <= 32
        assert norm(torch.randn(1, channels, 1, 1)).abs().max() > 0
