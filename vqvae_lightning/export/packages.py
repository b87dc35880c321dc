"""The formats of an export, and the packages that each needs: those of the extra `export`."""

from importlib.util import find_spec

from vqvae_lightning.config import ConfigError

# Format → the packages that open it, and those that write it beside these.
EXPORT_FORMATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "onnx": (("onnx", "onnxruntime"), ("onnxscript",)),
    "pt2": ((), ()),
    "safetensors": (("safetensors",), ()),
    "hub": (("safetensors",), ("huggingface_hub",)),
}


def check_packages(name: str, writes: bool = True) -> None:
    """Raises ConfigError, one line, unless the packages of a format are installed."""
    opening, writing = EXPORT_FORMATS[name]
    wanted = (*opening, *writing) if writes else opening
    if missing := [package for package in wanted if find_spec(package) is None]:
        raise ConfigError(
            f"format: {name} needs the package {missing[0]}, which is not installed; run"
            " `pip install 'vqvae_lightning[export]'`, here with `--constraint .ci/constraints.txt`"
        )
