"""The Gradle files say what android_demo/tools builds. Gradle is not run: it needs other servers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from android_demo.tools import build
from android_demo.tools.project import ABIS, ANDROID, APP, CATALOG, CORE, DEMO, Module

MODULES = (CORE, ANDROID, APP)
FILES = [DEMO / "settings.gradle.kts", DEMO / "build.gradle.kts"]
FILES += [DEMO / module.name / "build.gradle.kts" for module in MODULES]
#: Numbers that are part of a name, or say what a class file of Java 8 is.
NO_VERSIONS = ("x86_64", "aarch64", "arm64-v8a", "-Xjdk-release=8")


def _code(text: str) -> str:
    """A file without its comments."""
    return re.sub(r"(?m)//.*$|/\*.*?\*/", "", text)


def _numbers(text: str) -> list[str]:
    code = _code(text)
    for name in NO_VERSIONS:
        code = code.replace(name, "")
    return re.findall(r"\d[\w.]*", code)


def _names(catalog: dict[str, dict[str, object]]) -> Iterator[str]:
    for section in ("versions", "libraries", "plugins"):
        prefix = "libs." if section == "libraries" else f"libs.{section}."
        yield from (prefix + name.replace("-", ".") for name in catalog[section])


def _unbalanced(text: str) -> int:
    code = re.sub(r'"[^"]*"', "", _code(text))
    return sum(abs(code.count(a) - code.count(b)) for a, b in ("()", "{}", "[]"))


@pytest.mark.quick
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEMO)))
def test_no_number_is_in_a_gradle_file(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert _numbers(text) == []
    assert _unbalanced(text) == 0


@pytest.mark.quick
def test_a_number_would_be_seen() -> None:
    assert _numbers('minSdk = 24 // 12\nimplementation("a:b:1.2.3")') == ["24", "1.2.3"]
    assert _unbalanced("android { ndk {") == 2


@pytest.mark.quick
def test_every_name_of_the_catalog_that_gradle_uses_is_there() -> None:
    known = set(_names(tomllib.loads(CATALOG.read_text(encoding="utf-8"))))
    used = set()
    for file in FILES:
        for name in re.findall(r"\blibs\.[\w.]+", _code(file.read_text(encoding="utf-8"))):
            used.add(re.sub(r"\.get$", "", name))
    assert used <= known
    assert len(used) >= 14


@pytest.mark.quick
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_the_same_in_both(module: Module) -> None:
    text = _code((DEMO / module.name / "build.gradle.kts").read_text(encoding="utf-8"))
    namespace = re.search(r'namespace = "([\w.]+)"', text)
    assert (namespace.group(1) if namespace else None) == module.namespace
    needed = set(re.findall(r'project\(":(\w+)"\)', text))
    reached = set(needed)
    for other in MODULES:
        if other.name in needed:
            reached.update(other.needs)
    assert reached == set(module.needs)
    # Neither says where sources are: both take src/main/kotlin, src/main/res and the manifest there.
    assert "srcDirs" not in text
    assert (module.main / "kotlin").is_dir()
    assert (module.main / "AndroidManifest.xml").is_file() == (module.namespace is not None)


@pytest.mark.quick
def test_settings_include_the_modules() -> None:
    text = (DEMO / "settings.gradle.kts").read_text(encoding="utf-8")
    assert set(re.findall(r'":(\w+)"', text)) == {module.name for module in MODULES}


@pytest.mark.quick
def test_both_build_for_the_same_processors_by_the_same_rules() -> None:
    text = (DEMO / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    filters = re.search(r"abiFilters \+= listOf\(([^)]*)\)", text)
    assert filters is not None
    assert re.findall(r'"([^"]+)"', filters.group(1)) == list(build.DEFAULT_ABIS)
    folders = dict(re.findall(r'"(\w+)" to "([\w-]+)"', text))
    assert folders == {ABIS[abi]: abi for abi in build.DEFAULT_ABIS}
    assert 'proguardFiles("rules.pro")' in text
    library = (DEMO / "android" / "build.gradle.kts").read_text(encoding="utf-8")
    assert 'consumerProguardFiles("consumer-rules.pro")' in library


@pytest.mark.quick
def test_manifests_have_no_package_and_no_versions() -> None:
    for module in (ANDROID, APP):
        text = (module.main / "AndroidManifest.xml").read_text(encoding="utf-8")
        for name in ("package=", "versionCode", "versionName", "uses-sdk", "Sdk"):
            assert name not in text, module.name
