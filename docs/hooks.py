"""Pages of the site that lie outside docs/: READMEs beside what they describe, and the changelog.

Links are written as they are on disk, so that they also work where the repository is browsed.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "experiments/*/README.md",
    "experiments/*/tables.md",
    "experiments/*/figures/*.png",
    "experiments/majl/before/tables.md",
    "experiments/majl/before/figures/*.png",
)
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the files of OUTSIDE, each under its path in the repository."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points links at pages of the site; a link to code, which is not on it, becomes its text."""
    inside = pathlib.Path(page.file.src_dir or "") == pathlib.Path(config.docs_dir)
    folder = posixpath.dirname(("docs/" if inside else "") + page.file.src_uri)

    def point(link: re.Match[str]) -> str:
        text, target, anchor = link["text"], link["target"], link["anchor"] or ""
        if ":" in target:
            return link[0]
        on_disk = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / on_disk).exists():
            return link[0]
        uri = on_disk.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return text[1:-1]
        here = posixpath.dirname(page.file.src_uri) or "."
        return f"{text}({posixpath.relpath(uri, here)}{anchor})"

    return LINK.sub(point, markdown)
