"""Makes data/emoji of an npm package: 64×64 PNG, a folder for each split and category.

    npm pack emoji-datasource-google@16.0.0
    python experiments/emoji/make_folder.py emoji-datasource-google-16.0.0.tgz data/emoji

`make emoji` does both. The pictures are Google's Noto Emoji (SIL Open Font License 1.1). An emoji
and its skin tones are near copies, so all of them are in one split: of every ten, one for test.
"""

import hashlib
import json
import re
import sys
import tarfile
from pathlib import Path

SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
FOLDER = "package/img/google/64/"
TEST_SHARE = 10  # every tenth emoji of a category, with its skin tones


def main(package: Path, target: Path) -> None:
    """Writes target/train/<category>/<code>.png and target/test/<category>/<code>.png."""
    if (found := hashlib.sha256(package.read_bytes()).hexdigest()) != SHA256:
        sys.exit(f"{package}: SHA-256 is {found}, wanted {SHA256}")
    with tarfile.open(package) as tar:
        listed = tar.extractfile("package/emoji.json")
        assert listed is not None
        places = folders(json.load(listed))
        written = 0
        for member in tar:
            name = member.name.removeprefix(FOLDER)
            if member.isreg() and member.name.startswith(FOLDER) and name in places:
                content = tar.extractfile(member)
                assert content is not None
                folder = target / places[name]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content.read())
                written += 1
    print(f"emoji     {written:,} of {len(places):,} in {target}")


def folders(emoji: list[dict[str, object]]) -> dict[str, str]:
    """File name → its split and category, `train/Flags`."""
    places, seen = {}, dict[str, int]()
    for one in sorted(emoji, key=lambda one: str(one["image"])):
        category = str(one["category"])
        if category == "Component":  # five swatches of skin tones
            continue
        seen[category] = seen.get(category, -1) + 1
        split = "test" if seen[category] % TEST_SHARE == TEST_SHARE // 2 else "train"
        tones = one.get("skin_variations", {})
        assert isinstance(tones, dict)
        for image in [one["image"], *(tone["image"] for tone in tones.values())]:
            # Names come out of the package: nothing is written beside its folder.
            assert re.fullmatch(r"[0-9a-f-]+\.png", str(image)), image
            places[str(image)] = f"{split}/{category.replace(' & ', ' and ')}"
    return places


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
