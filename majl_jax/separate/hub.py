"""Model files by addresses, `hf://OWNER/NAME`, through huggingface_hub (the extra `hub`)."""

import importlib
import pathlib
import re
from typing import Any

from majl_jax.separate import cards

PREFIX = "hf://"
FILE = "model.safetensors"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?::([\w./-]+))?")


def is_address(text: str) -> bool:
    """Whether this names a repository."""
    return text.startswith(PREFIX)


def fetch(address: str) -> pathlib.Path:
    """The model file at an address, from the hub or as it was fetched before.

    hf://OWNER/NAME@REVISION:FILE; without a revision it is that of today, without a file
    model.safetensors. ValueError for what is no such address, and what the hub raises.
    """
    name, revision, file = _parts(address)
    return pathlib.Path(_hub().hf_hub_download(name, file, revision=revision))


def publish(path: pathlib.Path, address: str, info: cards.Info) -> str:
    """Puts a model file, and its card as README.md, into a repository, which is made if need be;
    returns where they are.
    """
    name, revision, file = _parts(address)
    api = _hub().HfApi()
    api.create_repo(name, exist_ok=True)
    for data, place in ((path, file), (cards.markdown(info, address).encode(), "README.md")):
        api.upload_file(path_or_fileobj=data, path_in_repo=place, repo_id=name, revision=revision)
    return address


def _parts(address: str) -> tuple[str, str | None, str]:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(
            f"{address} is no address of a model; expected hf://OWNER/NAME, or with a revision and"
            " a file hf://OWNER/NAME@REVISION:FILE"
        )
    return found[1], found[2], found[3] or FILE


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{PREFIX} addresses need huggingface_hub, which is not installed: pip install"
            ' huggingface_hub (or "majl_jax[hub]")'
        ) from error
