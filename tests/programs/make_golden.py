"""Writes tests/codec/golden/*.vqz anew: after a change of the format, and of its VERSION."""

from golden_models import FOLDER, GOLDEN, images

from vqvae_lightning import compress

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, golden in GOLDEN.items():
        data = compress(golden.model(), images(golden.shape, golden.levels), **golden.settings)
        (FOLDER / f"{name}.vqz").write_bytes(data)
        print(f"{name:15s} {len(data):6,d} bytes")
