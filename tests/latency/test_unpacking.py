"""What arrives as a package: the same again after a journey, or refused before it leaves its folder."""

import io
import json
import stat
import struct
import zipfile

import pytest

from mvit_search.errors import InputError
from mvit_search.latency.remote.packing import UnpackLimits, digest_of, pack, unpack

MANIFEST = json.dumps({
    "itemInfoEntries": {"id-1": {"name": "model", "path": "com.apple.CoreML/model"}}, "rootModelIdentifier": "id-1",
})  # fmt: skip
LIMITS = UnpackLimits()
GOOD = {"Manifest.json": MANIFEST, "Data/com.apple.CoreML/model": "a network"}


def make_package(folder, manifest=MANIFEST, model="a network"):
    (folder / "Data/com.apple.CoreML").mkdir(parents=True)
    (folder / "Data/com.apple.CoreML/model").write_text(model)
    (folder / "Manifest.json").write_text(manifest)
    return folder


def zipped(path, entries, *, kind=stat.S_IFREG, compression=zipfile.ZIP_DEFLATED, extra=()):
    """A zip of (name, content) pairs; `extra` ones have the file type `kind`."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
        for name, content in extra:
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, content)
    return path


def refusal(tmp_path, archive, limits=LIMITS):
    """What is said of an archive; and nothing is left outside the folder it was to go to."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(archive, tmp_path / "inside" / "package", limits)
    new = set(tmp_path.rglob("*")) - before
    assert all((tmp_path / "inside") in path.parents for path in new)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def inside(tmp_path):
    (tmp_path / "inside").mkdir()
    return tmp_path


def test_a_package_arrives_as_it_left(tmp_path):
    package = make_package(tmp_path / "net.mlpackage")
    pack(package, tmp_path / "a.zip")
    unpack(tmp_path / "a.zip", tmp_path / "b.mlpackage", UnpackLimits())
    assert digest_of(tmp_path / "b.mlpackage") == digest_of(package)
    assert (tmp_path / "b.mlpackage/Data/com.apple.CoreML/model").read_text() == "a network"
    pack(tmp_path / "b.mlpackage", tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def test_the_digest_leaves_out_what_each_saving_draws_anew(tmp_path):
    package = make_package(tmp_path / "a")
    again = make_package(tmp_path / "b", manifest=MANIFEST.replace("id-1", "id-2"))
    other = make_package(tmp_path / "c", model="another network")
    elsewhere = make_package(tmp_path / "d", manifest=MANIFEST.replace('"name": "model"', '"name": "weights"'))
    assert digest_of(package) == digest_of(again)
    assert len({digest_of(folder) for folder in (package, other, elsewhere)}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "../out", "Data/../../out", "/etc/out", "//out", "C:/out", "C:out", "..\\out", "\\\\server\\out", "Data//out",
        "./out", "Data/./out", "new\nline", "x" * 300, "..",
    ],
)  # fmt: skip
def test_a_name_that_leads_out_is_refused(inside, name):
    said = refusal(inside, zipped(inside / "bad.zip", [*GOOD.items(), (name, "bad")]))
    assert "leave its folder" in said or "no plain path" in said


def test_a_name_with_a_nul_is_refused(inside):
    """Python's zipfile cuts names there, the way it reads and the way it writes."""
    content = zipped(inside / "bad.zip", [*GOOD.items(), ("Data/a!b", "bad")]).read_bytes()
    (inside / "bad.zip").write_bytes(content.replace(b"Data/a!b", b"Data/a\0b"))
    assert "no plain path" in refusal(inside, inside / "bad.zip")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(inside, kind):
    archive = zipped(inside / "bad.zip", GOOD.items(), extra=[("Data/link", "/etc/passwd")], kind=kind)
    assert "neither a file nor a folder" in refusal(inside, archive)


def test_a_link_and_a_file_through_it_are_refused(inside):
    archive = zipped(
        inside / "bad.zip", GOOD.items(), extra=[("Data/link", str(inside)), ("Data/link/out", "bad")],
        kind=stat.S_IFLNK,
    )  # fmt: skip
    refusal(inside, archive)
    assert not (inside / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["Data/com.apple.CoreML/model", "data/COM.apple.CoreML/Model"])
def test_a_name_that_comes_twice_is_refused(inside, name):
    assert "twice" in refusal(inside, zipped(inside / "bad.zip", [*GOOD.items(), (name, "bad")]))


def test_a_file_that_is_a_folder_too_is_refused(inside):
    archive = zipped(inside / "bad.zip", [*GOOD.items(), ("Data/com.apple.CoreML/model/x", "bad")])
    assert "cannot be unpacked" in refusal(inside, archive)


def test_a_bomb_is_refused(inside):
    archive = zipped(inside / "bad.zip", [*GOOD.items(), ("Data/zeros", bytes(20_000_000))])
    assert archive.stat().st_size < 30_000
    assert "grows more than 100 times" in refusal(inside, archive)
    assert "more than 10000000" in refusal(inside, archive, UnpackLimits(total_bytes=10_000_000))


def test_many_entries_are_refused_before_they_are_read(inside):
    archive = zipped(inside / "bad.zip", [*GOOD.items(), *((f"Data/{i}", "") for i in range(50))])
    assert "more than 20 entries" in refusal(inside, archive, UnpackLimits(entries=20))
    # The last record may lie about the count; the size of the directory is what is read.
    content = bytearray(archive.read_bytes())
    content[-14:-10] = struct.pack("<HH", 1, 1)
    archive.write_bytes(content)
    assert "more than 2 entries" in refusal(inside, archive, UnpackLimits(entries=2))


def test_an_entry_larger_than_it_says_is_refused(inside):
    archive = zipped(inside / "bad.zip", [*GOOD.items(), ("Data/large", bytes(5000))], compression=zipfile.ZIP_STORED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<LL", 5000, 5000), struct.pack("<LL", 5000, 50)))
    assert "cannot be unpacked" in refusal(inside, archive)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no zip file"), (b"PK", "no zip file"), (b"not a zip at all, but long enough to hold one", "no zip file"),
        (b"PK\5\6" + bytes(18), "no Manifest.json"),
        (bytes(5) + b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18), "zip64"),
    ],
)  # fmt: skip
def test_what_is_no_zip_is_refused(inside, content, says):
    (inside / "bad.zip").write_bytes(content)
    assert says in refusal(inside, inside / "bad.zip")


def test_an_encrypted_or_cut_zip_is_refused(inside):
    whole = zipped(inside / "good.zip", GOOD.items()).read_bytes()
    encrypted = bytearray(whole)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = encrypted.find(signature)
        encrypted[at + offset] |= 1
    (inside / "bad.zip").write_bytes(encrypted)
    assert "cannot be unpacked" in refusal(inside, inside / "bad.zip")
    (inside / "cut.zip").write_bytes(whole[10:])
    assert "cannot be unpacked" in refusal(inside, inside / "cut.zip")


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (None, "no Manifest.json"), ("", "cannot be read"), ("[]", "cannot be read"), ("{}", "cannot be read"),
        ('{"itemInfoEntries": {"a": 1}}', "cannot be read"), ("[" * 5000, "cannot be read"),
        (MANIFEST.replace("com.apple.CoreML/model", "../../../etc/passwd"), "leave its folder"),
        (MANIFEST.replace("com.apple.CoreML/model", "/etc/passwd"), "leave its folder"),
        (MANIFEST.replace("com.apple.CoreML/model", "absent"), "does not hold it"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_or_points_out_is_refused(inside, manifest, says):
    entries = {**GOOD, "Manifest.json": manifest}
    if manifest is None:
        del entries["Manifest.json"]
    assert says in refusal(inside, zipped(inside / "bad.zip", entries.items()))


def test_a_package_from_a_macs_zip_command_is_taken(tmp_path):
    """With entries for folders, as `zip -r ../net.zip .` writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("Data/", "Data/com.apple.CoreML/"):
            archive.mkdir(name.rstrip("/"))
        for name, content in GOOD.items():
            archive.writestr(name, content)
    (tmp_path / "net.zip").write_bytes(buffer.getvalue())
    unpack(tmp_path / "net.zip", tmp_path / "net.mlpackage", UnpackLimits())
    assert digest_of(tmp_path / "net.mlpackage") == digest_of(make_package(tmp_path / "made"))
