from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from android_demo.tools import build, kotlin, manifest, sdk
from android_demo.tools.app_bundle import FORMAT_VERSION, write_app_bundle
from android_demo.tools.archive import Entry, write_zip
from android_demo.tools.project import versions
from android_demo.tools.toolchain import part
from tests.android.apk import PAGE, libraries, offsets, segments
from tests.android.conftest import ABIS

WANTED_PERMISSIONS = {"INTERNET", "ACCESS_NETWORK_STATE", "RECEIVE_BOOT_COMPLETED"}


@pytest.fixture(scope="session")
def apk(unsigned: Path) -> Path:
    """The same, signed."""
    target = unsigned.with_name("signed.apk")
    sdk.sign(unsigned, target, sdk.debug_key(), least=versions()["minSdk"])
    return target


@pytest.fixture(scope="session")
def badging(apk: Path) -> str:
    return sdk.aapt2("dump", "badging", apk)


@pytest.mark.test
def test_package_and_versions_are_those_of_the_catalog(badging: str) -> None:
    number = versions()
    assert re.search(r"package: name='org\.edgemrl\.demo' versionCode='(\d+)' ", badging)
    assert f"versionName='{number['appVersion']}'" in badging
    assert f"minSdkVersion:'{number['minSdk']}'" in badging
    assert f"targetSdkVersion:'{number['targetSdk']}'" in badging
    assert "launchable-activity: name='org.edgemrl.demo.NotesActivity'" in badging
    assert "native-code: 'arm64-v8a'" in badging


@pytest.mark.test
def test_no_permission_but_those_of_sync(badging: str) -> None:
    found = set(re.findall(r"uses-permission: name='android\.permission\.(\w+)'", badging))
    assert found == WANTED_PERMISSIONS
    assert badging.count("uses-permission") == len(WANTED_PERMISSIONS)


@pytest.mark.test
def test_no_content_provider_and_nothing_exported_that_need_not_be(apk: Path) -> None:
    tree = sdk.aapt2("dump", "xmltree", "--file", "AndroidManifest.xml", apk)
    assert "E: activity" in tree
    assert "E: provider" not in tree
    assert "TelemetryInitializer" not in tree
    assert len(re.findall(r"exported\(0x01010010\)=true", tree)) == 2  # the list, and sharing
    assert re.search(r"extractNativeLibs\(0x010104ea\)=false", tree)
    assert re.search(r"allowBackup\(0x01010280\)=false", tree)


@pytest.mark.test
def test_libraries_are_stored_and_aligned_to_pages_of_16_kb(apk: Path) -> None:
    found = libraries(apk)
    assert {Path(library.name).name for library in found} == {
        "libonnxruntime.so",
        "libonnxruntime4j_jni.so",
        "libsqlitejdbc.so",
    }
    for library in found:
        assert library.stored, library.name
        assert library.offset % PAGE == 0, library.name
        assert library.segments, library.name
        assert all(alignment % PAGE == 0 for alignment in library.segments), library.name
    offset, compression = offsets(apk)["resources.arsc"]
    assert (offset % 4, compression) == (0, 0)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.test
def test_the_unsigned_apk_is_the_same_twice(unsigned: Path, apk: Path, tmp_path: Path) -> None:
    again = build.build(build.Build("apk", build.TINY, ABIS, None, tmp_path / "again.apk"))
    assert _digest(again) == _digest(unsigned)
    with zipfile.ZipFile(unsigned) as one, zipfile.ZipFile(apk) as signed:
        assert {info.filename: info.CRC for info in one.infolist()} == {
            info.filename: info.CRC for info in signed.infolist()
        }


@pytest.mark.nightly
def test_the_unsigned_apk_is_the_same_when_all_is_compiled_again(
    unsigned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (build, kotlin):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    again = build.build(build.Build("apk", build.TINY, ABIS, None, tmp_path / "again.apk"))
    assert list((tmp_path / "build").glob("app-*.jar"))
    assert _digest(again) == _digest(unsigned)


@pytest.mark.nightly
def test_the_app_bundle_is_valid(unsigned: Path, tmp_path: Path) -> None:
    made, again = (
        build.build(build.Build("aab", build.TINY, build.DEFAULT_ABIS, None, tmp_path / name))
        for name in ("one.aab", "two.aab")
    )
    assert _digest(made) == _digest(again)
    with zipfile.ZipFile(made) as bundle, zipfile.ZipFile(unsigned) as apk:
        assert bundle.read("base/dex/classes.dex") == apk.read("classes.dex")
    said = _bundletool("dump", "manifest", f"--bundle={made}")
    assert 'package="org.edgemrl.demo"' in said
    assert 'minSdkVersion="24"' in said
    _bundletool("validate", f"--bundle={made}")
    apks = tmp_path / "app.apks"
    _bundletool(
        "build-apks",
        f"--bundle={made}",
        f"--output={apks}",
        "--mode=universal",
        f"--aapt2={sdk.aapt2_file()}",
    )
    with zipfile.ZipFile(apks) as archive:
        archive.extract("universal.apk", tmp_path)
    # What a store makes of it is mapped from pages of 16 KB, too.
    found = libraries(tmp_path / "universal.apk")
    assert len(found) == 3 * len(build.DEFAULT_ABIS)
    for library in found:
        assert (library.stored, library.offset % PAGE) == (True, 0), library.name
        assert all(alignment % PAGE == 0 for alignment in library.segments), library.name


def _bundletool(*arguments: object) -> str:
    """The bundletool that makes APKs, which refuses what it cannot read."""
    line = [kotlin.java(), "-jar", part("nightly-bundletool"), *arguments]
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _fields(data: bytes) -> dict[int, list[bytes | int]]:
    """The fields of a message of protobuf whose numbers and lengths are below 128."""
    found: dict[int, list[bytes | int]] = {}
    while data:
        field, kind, size = data[0] >> 3, data[0] & 7, data[1]
        assert kind in (0, 2)
        found.setdefault(field, []).append(data[2 : 2 + size] if kind == 2 else size)
        data = data[2 + (size if kind == 2 else 0) :]
    return found


@pytest.mark.quick
def test_an_app_bundle_has_everything_in_its_place(tmp_path: Path) -> None:
    names = ["AndroidManifest.xml", "resources.pb", "classes.dex", "res/a.xml", "assets/b", "c.txt"]
    entries = [*(Entry(name, name.encode()) for name in names), Entry("lib/x86_64/d.so", b"d")]
    for file in ("one.aab", "two.aab"):
        write_app_bundle(tmp_path / file, entries, ["x86_64", "arm64-v8a"])
    assert _digest(tmp_path / "one.aab") == _digest(tmp_path / "two.aab")
    with zipfile.ZipFile(tmp_path / "one.aab") as archive:
        assert set(archive.namelist()) == {
            "BundleConfig.pb", "base/native.pb", "base/manifest/AndroidManifest.xml",
            "base/resources.pb", "base/dex/classes.dex", "base/res/a.xml", "base/assets/b",
            "base/root/c.txt", "base/lib/x86_64/d.so",
        }  # fmt: skip
        config = _fields(archive.read("BundleConfig.pb"))
        native = _fields(archive.read("base/native.pb"))
    assert _fields(config[1][0]) == {2: [FORMAT_VERSION.encode()]}  # type: ignore[arg-type]
    folders = [_fields(one) for one in native[1]]  # type: ignore[arg-type]
    assert [one[1] for one in folders] == [[b"lib/arm64-v8a"], [b"lib/x86_64"]]
    with pytest.raises(ValueError, match="mips"):
        write_app_bundle(tmp_path / "no.aab", entries, ["mips"])
    with pytest.raises(ValueError, match="lacks its manifest"):
        write_app_bundle(tmp_path / "no.aab", entries[1:], ["x86_64"])


@pytest.mark.test
def test_assets_are_the_bundle(apk: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        for file in build.TINY.iterdir():
            assert archive.read(f"assets/bundle/{file.name}") == file.read_bytes()


@pytest.mark.test
def test_a_changed_apk_does_not_verify(apk: Path, tmp_path: Path) -> None:
    """The signer verifies what it wrote; here a byte is changed behind its back."""
    verify = tmp_path / "Verify.java"
    verify.write_text(
        "import shadow.bundletool.com.android.apksig.ApkVerifier;\n"
        "public final class Verify { public static void main(String[] a) throws Exception {\n"
        "  var r = new ApkVerifier.Builder(new java.io.File(a[0])).build().verify();\n"
        '  System.out.println(r.isVerified() + " " + r.isVerifiedUsingV2Scheme() + " "\n'
        "    + r.isVerifiedUsingV3Scheme()); } }\n"
    )
    broken = tmp_path / "broken.apk"
    shutil.copyfile(apk, broken)
    offset, _ = offsets(apk)["lib/arm64-v8a/libsqlitejdbc.so"]
    with broken.open("r+b") as file:
        file.seek(offset + 5000)
        byte = file.read(1)[0]
        file.seek(offset + 5000)
        file.write(bytes([byte ^ 1]))
    command = [kotlin.java(), "-cp", str(part("bundletool")), str(verify)]
    said = [
        subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout
        for file in (apk, broken)
    ]
    assert said == ["true true true\n", "false false false\n"]


@pytest.mark.test
@pytest.mark.usefixtures("apk")
def test_the_lint_finds_an_api_that_the_oldest_android_lacks(tmp_path: Path) -> None:
    source = tmp_path / "Newer.java"
    source.write_text(
        "package org.edgemrl.android;\n"
        "@interface Guarded {}\n"
        "class Newer { Object a() { return java.util.Base64.getEncoder(); }\n"
        "  @Guarded Object b() { return java.time.Instant.now(); }\n"
        "  Object c() { return new java.util.ArrayList<String>(); } }\n"
    )
    classes = tmp_path / "classes"
    sdk.compile_java(source, classes)
    jar = tmp_path / "newer.jar"
    write_zip(jar, [Entry(str(f.relative_to(classes)), f) for f in classes.rglob("*.class")])
    found = sdk.lint([jar])
    assert "java.util.Base64" in found
    assert "java.time" not in found
    assert "ArrayList" not in found


@pytest.mark.test
def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["apk", "--bundle", str(tmp_path), "--unsigned"]) == 1
    assert "has no edge_mrl.json. Make one: edge-mrl export" in capsys.readouterr().err


def _manifest(tmp_path: Path, name: str, inside: str, attributes: str = "") -> Path:
    file = tmp_path / name
    spaces = f'xmlns:android="{manifest.NAMESPACE}" xmlns:tools="http://schemas.android.com/tools"'
    file.write_text(
        f"<manifest {spaces}>{attributes}<application>{inside}</application></manifest>"
    )
    return file


@pytest.mark.quick
def test_a_provider_of_a_library_is_removed_where_the_app_says_so(tmp_path: Path) -> None:
    library = _manifest(
        tmp_path, "l.xml", '<provider android:name="P"/><service android:name="S"/>'
    )
    app = _manifest(tmp_path, "a.xml", '<provider android:name="P" tools:node="remove"/>')
    merged = manifest.merged(app, library)
    assert "provider" not in merged
    assert 'service android:name="S"' in merged
    assert 'package="org.edgemrl.demo"' in merged
    assert "provider" in manifest.merged(_manifest(tmp_path, "b.xml", ""), library)


@pytest.mark.quick
def test_a_component_of_both_is_refused(tmp_path: Path) -> None:
    both = _manifest(tmp_path, "a.xml", '<service android:name="S"/>')
    with pytest.raises(ValueError, match="app and library both have"):
        manifest.merged(both, both)


@pytest.mark.quick
def test_entries_are_in_order_and_names_are_given_once(tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    write_zip(
        target, [Entry("lib/x.so", b"elf"), Entry("a", b"1" * 3), Entry("resources.arsc", b"2")]
    )
    assert {
        name: offset % (PAGE if name.endswith(".so") else 4)
        for name, (offset, kind) in offsets(target).items()
        if kind == 0
    } == {"lib/x.so": 0, "resources.arsc": 0}
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["a", "lib/x.so", "resources.arsc"]
        assert archive.testzip() is None
    with pytest.raises(ValueError, match="two entries"):
        write_zip(target, [Entry("a", b""), Entry("a", b"")])


@pytest.mark.quick
def test_segments_of_4_kb_are_seen() -> None:
    header = bytearray(64 + 56)
    header[:5] = b"\x7fELF\x02"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    header[64:68] = (1).to_bytes(4, "little")
    header[64 + 48 : 64 + 56] = (4096).to_bytes(8, "little")
    assert segments(bytes(header)) == (4096,)
