"""Hooks of mkdocs: what the site has beside docs/.

Pages link to files of the repository by relative paths, as a code host wants them. Here such a
link becomes one within the site: a module of the package is its API page, a Markdown file or a
picture outside docs/ is copied to the same path, a notebook is a page with its outputs. A public
name without a docstring is a warning, and so an error of `make docs`.
"""

import ast
import base64
import json
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vqvae_lightning"
PAGES = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "experiments/README.md",
    "experiments/benchmarks/README.md",
)
# [text](path#anchor), or [name]: path#anchor on a line of its own; nothing with a scheme
LINK = re.compile(
    r"(?P<before>!?\[[^\]]*\](?:\(|: ))(?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?(?=\)|$)",
    re.MULTILINE,
)
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

logger = logging.getLogger("mkdocs.hooks.site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the API to the navigation: a section per folder of the package."""
    sections: dict[str, list[Any]] = {}
    for module in modules():
        folder = module.parent.relative_to(PACKAGE).as_posix()
        title = folder.removeprefix(".") or PACKAGE.name
        sections.setdefault(title, []).append({module.name: api_page(module)})
    config.nav = [*(config.nav or []), {"API": [{name: s} for name, s in sections.items()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the API pages, the Markdown files outside docs/ and what they link to."""
    for module in modules():
        check_docstrings(module)
        text = f"# {dotted(module)}\n\n::: {dotted(module)}\n"
        files.append(File.generated(config, api_page(module), content=text))
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        text, pictures = notebook_page(notebook)
        files.append(File.generated(config, f"{notebook.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    sources = {f"docs/{path.name}": path for path in (ROOT / "docs").glob("*.md")}
    sources |= {name: ROOT / name for name in PAGES}
    for name, path in sources.items():
        for linked in outside_links(name, path.read_text("utf-8")):
            place = site_path(linked)
            if (ROOT / linked).is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / linked)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links within the site."""
    here = page.file.src_uri

    def inside(found: re.Match[str]) -> str:
        target = repository_path(repository_source(here), found["path"])
        relative = posixpath.relpath(site_path(target), posixpath.dirname(here) or ".")
        return f"{found['before']}{relative}{found['anchor'] or ''}"

    if here.startswith("api/"):
        return markdown
    parts = FENCE.split(markdown)
    return "".join(p if p.startswith("```") else LINK.sub(inside, p) for p in parts)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and the pictures of its outputs by their names in the site."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above shows]({name})")
            else:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts), pictures


def modules() -> Iterator[Path]:
    """The files of the package that hold code."""
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: (p.parent, p.name)):
        if path.stat().st_size:
            yield path


def dotted(module: Path) -> str:
    """The name by which a module is imported."""
    parts = module.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def api_page(module: Path) -> str:
    """The page of a module, in the site."""
    return site_path(module.relative_to(ROOT).as_posix())


def site_path(target: str) -> str:
    """Where the site has a file of the repository."""
    if target == "README.md":
        return "index.md"
    if target.startswith("docs/"):
        return target.removeprefix("docs/").replace(".ipynb", ".md")
    if target.startswith(f"{PACKAGE.name}/") and target.endswith(".py"):
        inside = target.removeprefix(f"{PACKAGE.name}/").removesuffix(".py")
        return f"api/{inside.replace('__init__', 'index').replace('__main__', 'main')}.md"
    return target


def repository_source(page: str) -> str:
    """Where the repository has the source of a page of the site."""
    return page if page in PAGES else f"docs/{page}"


def repository_path(source: str, link: str) -> str:
    """A relative link of a file, from the top of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def outside_links(source: str, text: str) -> Iterator[str]:
    """Files outside docs/ that a page links to, from the top of the repository."""
    for found in LINK.finditer(FENCE.sub("", text)):
        target = repository_path(source, found["path"])
        if not target.startswith(("docs/", f"{PACKAGE.name}/")):
            yield target


def check_docstrings(module: Path) -> None:
    """Warns of a module, a class or a function that is public and has no docstring."""
    tree = ast.parse(module.read_text("utf-8"))
    named: list[tuple[str, Any]] = [("module", tree)]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        # The overloads of a function share the docstring of the function itself.
        if not any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
            named.append((node.name, node))
    for name, node in named:
        if ast.get_docstring(node) is None:
            logger.warning("%s: %s has no docstring", module.relative_to(ROOT), name)
