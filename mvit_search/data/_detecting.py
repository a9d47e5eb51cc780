"""Which source reads a path that was named without one."""

from pathlib import Path

from mvit_search.errors import InputError

ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")

_CIFAR_FILES = ("data_batch_1", "data_batch_1.bin", "train.bin")
_CIFAR_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
_CIFAR_DOWNLOADS = ("cifar-10-python", "cifar-10-binary", "cifar-100-python", "cifar-100-binary")


def kind_of(path: Path) -> str:
    """The key of `OPENERS` for an existing file or folder: by names alone, nothing is opened.

    Raises:
        InputError: a file of no known kind.
    """
    if path.is_dir():
        return _kind_of_folder(path)
    name = path.name.lower()
    if name.endswith(ARCHIVE_ENDINGS):
        return "cifar" if name.startswith(_CIFAR_DOWNLOADS) else "archive"
    if name.endswith(".npz"):
        return "npz"
    endings = " ".join((*ARCHIVE_ENDINGS, ".npz"))
    raise InputError("data", str(path), "is a file of no known kind", f"name a folder, or a file ending in {endings}")


def _kind_of_folder(path: Path) -> str:
    names = {entry.name for entry in path.iterdir()}
    files = {name for name in names if (path / name).is_file()}
    if "dataset_dict.json" in files or {"dataset_info.json", "state.json"} <= files:
        return "datasets"
    if any(name in files for name in _CIFAR_FILES) or {"train", "test", "meta"} <= files:
        return "cifar"
    if names & set(_CIFAR_FOLDERS):
        return "cifar"
    folders = {name for name in names - files if not name.startswith(".")}
    if not folders and any(name.lower().endswith(ARCHIVE_ENDINGS[:3]) for name in files):
        return "webdataset"
    return "folder"
