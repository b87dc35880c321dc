"""`python -m vqvae_lightning`: the same as the console script `vqvae`."""

from vqvae_lightning.cli import main

if __name__ == "__main__":
    main()
