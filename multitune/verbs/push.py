"""Upload a sealed artifact to a hub.

`multitune push runs/digits-1a2b3c org/name --private`. The token is the hub's own (HF_TOKEN, or `hf auth login`); it is never printed, and
never sent unencrypted to another machine. What the repository held and the artifact does not hold goes in the same commit.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import Fault, UserError
from multitune.core.result import Result

if TYPE_CHECKING:
    from multitune.deliver.artifact import Artifact

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
REFUSALS = {
    401: "The token is not taken: hf auth login, or set HF_TOKEN.",
    403: "The token may not write there: make one with write access, or name a repository of yours.",
    404: "There is no such place for this token: check the repository's name and owner.",
    409: "It was changed meanwhile: give the same command again.",
}


class Options(catalog.Options):
    """What goes where."""

    artifact: Path = Field(description="an artifact's folder, or a run's", json_schema_extra={"positional": True, "metavar": "ARTIFACT"})
    repo: str = Field(description="org/name on the hub; made where it is not there", json_schema_extra=catalog.POSITIONAL)
    endpoint: str = Field(default="", description="another hub's URL; by default HF_ENDPOINT, else huggingface.co")
    private: bool = Field(default=False, description="make the repository private, where it is made")
    revision: str = Field(default="", description="a branch, made where it is not there; by default main")
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """Where the artifact is now."""
    made = push(options.artifact, options.repo, endpoint=options.endpoint, private=options.private, revision=options.revision)
    return made if options.run is None else made.kept(options.run / "push.txt")


def push(artifact: Path | str | Artifact, repo: str, *, endpoint: str = "", private: bool = False, revision: str = "") -> Result:
    """Upload an artifact in one commit; figures: `files`, `bytes`.

    Raises: ArtifactError for what is not sealed; UserError for a name, a token or a place that will not do; Fault where the hub fails.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise UserError("push", f'"{repo}" is no repository.', "It reads org/name, or yourname/name.")
    _refuse_offline()
    opened = _opened(artifact)
    from huggingface_hub import HfApi, constants, get_token

    from multitune.deliver import golden

    place = (endpoint or constants.ENDPOINT).rstrip("/")
    _refuse_unencrypted(place)
    token = get_token()
    if not token:
        raise UserError("push", "there is no token for the hub.", "hf auth login, or set HF_TOKEN.")
    sizes = [path.stat().st_size for path in opened.folder.rglob("*") if path.is_file()]
    commit = _sent(HfApi(endpoint=place, token=token), opened, repo, private, revision)
    told = f"pushed {len(sizes)} files, {sum(sizes) / (1 << 20):.1f} MB, of {opened.folder} to {repo}" + (
        f" at {revision}" if revision else ""
    )
    rows = golden.count(opened.folder)
    told += f"\nwith {rows} rows of the test split (golden/), by which any copy is checked" if rows else ""
    back = f"back again: hf download {repo} --local-dir FOLDER, then multitune predict FOLDER"
    figures = {"files": float(len(sizes)), "bytes": float(sum(sizes))}
    return Result(ok=True, figures=figures, paths={"artifact": opened.folder}, text=f"{told}\n{commit}\n{back}")


def _opened(artifact: Path | str | Artifact) -> Artifact:
    """The artifact, verified now: what was opened earlier may have changed since.

    Raises: ArtifactError.
    """
    from multitune.deliver.artifact import Artifact as Opened
    from multitune.deliver.artifact import open_artifact

    return open_artifact(artifact.folder if isinstance(artifact, Opened) else artifact)


def _refuse_offline() -> None:
    named = [name for name in OFFLINE if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}]
    if named:
        raise UserError("push", f"{named[0]} is set: nothing goes to a hub.", f"{named[0]}=0 multitune push ...")


def _refuse_unencrypted(endpoint: str) -> None:
    """Refuse an endpoint that is none, and one that would get the token unencrypted from another machine."""
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        raise UserError("--endpoint", "has a name or a password in it, which would be shown.", "Leave it out: the token is the hub's own.")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError("--endpoint", f'"{endpoint}" is no URL.', "Give one such as https://huggingface.co.")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UserError("--endpoint", f"{endpoint} would get the token unencrypted.", "Use https.")


def _sent(api: Any, artifact: Artifact, repo: str, private: bool, revision: str) -> str:
    """The URL of the commit.

    Raises: UserError where the hub refuses; Fault where it cannot be reached or fails.
    """
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=artifact.folder,
            revision=revision or None,
            commit_message=f"{artifact.facts.name}, fine-tuned with multitune {artifact.facts.multitune}",
            delete_patterns="*",
        )
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in REFUSALS:
            raise UserError(repo, f"the hub refuses it ({status}).", REFUSALS[status]) from None
        raise Fault(f"{repo}: the hub answers {status} ({error.response.reason_phrase}). Give the same command again later.") from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise Fault(f"{api.endpoint}: cannot be reached ({type(error).__name__}). Check the network and --endpoint.") from None
    return str(done.commit_url)
