"""`make settings`: writes settings.json of the package, and the list of settings in docs/."""

import re
from pathlib import Path

from vqvae_lightning.cli.reference import FILE, as_json, of_everything
from vqvae_lightning.config.listing import listed

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BLOCK = re.compile(r"^```text\n.*?^```\n", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Writes both files."""
    everything = of_everything()
    FILE.write_text(as_json(everything), "utf-8")
    block = f"```text\n{listed(everything['experiment'], 100)}```\n"
    PAGE.write_text(BLOCK.sub(lambda _: block, PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
