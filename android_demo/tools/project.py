"""What the build is made of: the catalog's versions, and the modules with their folders.

The Gradle files say the same; tests/android/test_gradle.py compares them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ABIS", "ANDROID", "APP", "CATALOG", "CORE", "DEMO", "Module", "versions"]

DEMO = Path(__file__).resolve().parents[1]
CATALOG = DEMO / "gradle" / "libs.versions.toml"
#: Each kind of processor with the folder of its library in sqlite-jdbc's jar.
ABIS = {"arm64-v8a": "aarch64", "x86_64": "x86_64", "armeabi-v7a": "arm"}


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the project.

    Attributes:
        name: Its folder in android_demo, and its name in Gradle.
        namespace: The package of its manifest; None for a module without Android.
        needs: The modules that it is compiled against.
    """

    name: str
    namespace: str | None
    needs: tuple[str, ...]

    @property
    def main(self) -> Path:
        """The folder of what is shipped."""
        return DEMO / self.name / "src" / "main"

    @property
    def test(self) -> Path:
        """The folder of what is not."""
        return DEMO / self.name / "src" / "test"


CORE = Module("core", None, ())
ANDROID = Module("android", "org.edgemrl.android", ("core",))
APP = Module("app", "org.edgemrl.demo", ("core", "android"))


def versions() -> dict[str, str]:
    """The versions of the catalog."""
    return dict(tomllib.loads(CATALOG.read_text(encoding="utf-8"))["versions"])
