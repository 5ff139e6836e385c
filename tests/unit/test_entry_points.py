"""Encoders of other packages: found by the entry-point group, refused by name where they are broken.

The packages are really installed as far as Python can see: a folder on the path with a module and a
`.dist-info` of METADATA and entry_points.txt, as pip leaves them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from vecdb import encoders
from vecdb.encoders import registry
from vecdb.errors import EncoderMismatch, InvalidArgument

MODULE = """
import numpy as np

class Letters:
    def __init__(self, dim="3"):
        self.dim, self.name, self.metric = int(dim), f"letters:{dim}", "cosine"
        self.fingerprint = f"letters 1 {dim}"
        self.card = type("Card", (), {"trained_on": "nothing", "licence": "MIT"})()
    def encode_documents(self, texts):
        rows = [[1 + text.count(chr(97 + at)) for at in range(self.dim)] for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dim)
    encode_queries = encode_documents

def fails(): raise RuntimeError("no licence key")
def asks(parameter): return Letters(parameter)
def junk(): return 3
number = 7
"""


class Site:
    """A folder in which packages are installed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.setattr(registry, "_made", {})
        patch.setattr(registry, "_registered", {})
        patch.syspath_prepend(folder)
        for name in [name for name in sys.modules if name.startswith("tiny_")]:
            del sys.modules[name]

    def install(self, package: str, points: str, module: str = MODULE) -> None:
        name = package.replace("-", "_")
        (self.folder / f"{name}.py").write_text(module)
        info = self.folder / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text(f"{name}.py,,\n{name}-1.2.dist-info/METADATA,,\n")
        (info / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder, monkeypatch)


def test_an_installed_package_brings_an_encoder(site: Site, tmp_path: Path) -> None:
    assert "letters" not in encoders.available()
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\n[console_scripts]\nx = y:z\n")
    assert "letters" in encoders.available() and "x" not in encoders.available()
    assert "tiny_letters" not in sys.modules  # named, not run
    assert encoders.get("letters").dim == 3 and encoders.get("letters:5").dim == 5
    assert encoders.card_of(encoders.get("letters")).languages == "not stated"
    path = tmp_path / "c.vecdb"
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder="letters")
        c.add(["a", "b"], texts=["aaa", "bbb"])
    registry._made.clear()
    with vecdb.open(path) as db:
        assert db["c"].search("bb", k=1).ids == ["b"]
        assert db["c"].schema.encoder == "letters:3"


def test_another_process_finds_it_and_the_command_line_shows_it(site: Site) -> None:
    pytest.importorskip("typer")
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\n")
    site.install("tiny-broken", "[vecdb.encoders]\nbroken = tiny_broken:fails\n")
    code = f"import sys; sys.path.insert(0, {str(site.folder)!r}); from vecdb.cli import main; sys.argv[1:] = ['encoders']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "letters" in done.stdout and "no licence key" in done.stdout and "tiny-broken 1.2" in done.stdout


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("tiny_broken:absent", "cannot be loaded: AttributeError"),
        ("no_such_module_here:x", "cannot be loaded: ModuleNotFoundError"),
        ("tiny_broken:fails", "could not be made: RuntimeError: no licence key"),
        ("tiny_broken:number", "no factory but int"),
        ("tiny_broken:junk", "is int, no encoder: it lacks name"),
        ("not a reference", "cannot be loaded"),
    ],
)
def test_a_broken_package_is_named_and_costs_only_its_own_name(site: Site, point: str, said: str) -> None:
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\n")
    site.install("tiny-broken", f"[vecdb.encoders]\nbroken = {point}\n")
    assert {"hashing", "letters"} <= set(encoders.available())
    with pytest.raises(InvalidArgument) as caught:
        encoders.get("broken")
    assert "'broken'" in str(caught.value) and "tiny-broken 1.2" in str(caught.value) and said in str(caught.value)
    assert encoders.get("letters").dim == 3
    db = vecdb.open()
    with pytest.raises(InvalidArgument, match="tiny-broken"):
        db.create_collection("c", encoder="broken")
    assert db.collections() == []


def test_a_module_that_cannot_be_imported(site: Site) -> None:
    site.install("tiny-broken", "[vecdb.encoders]\nbroken = tiny_broken:x\n", "import no_such_module_here\n")
    with pytest.raises(InvalidArgument, match=r"package tiny-broken 1\.2 .*no_such_module_here"):
        encoders.get("broken")


def test_damaged_metadata_of_one_package_hides_no_other(site: Site) -> None:
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\n")
    site.install("tiny-damaged", "[vecdb.encoders]\nthis line has no sign\n")
    assert {"hashing", "letters"} <= set(encoders.available())
    assert encoders.get("letters").dim == 3


def test_parameters_that_do_not_fit_are_named(site: Site) -> None:
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\nasks = tiny_letters:asks\n")
    assert encoders.get("asks:4").dim == 4
    with pytest.raises(InvalidArgument, match="'asks' could not be made"):
        encoders.get("asks")
    with pytest.raises(InvalidArgument, match="could not be made: ValueError"):
        encoders.get("letters:many")


def test_a_name_that_two_packages_offer_is_refused_until_one_is_meant(site: Site) -> None:
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\nhashing = tiny_letters:Letters\n")
    site.install("tiny-other", "[vecdb.encoders]\nletters = tiny_other:Letters\n")
    assert encoders.get("hashing").dim == 512  # vecdb's own hides a package's
    with pytest.raises(InvalidArgument, match=r"tiny-letters 1\.2.*tiny-other 1\.2|tiny-other 1\.2.*tiny-letters 1\.2"):
        encoders.get("letters")
    encoders.register("letters", lambda: encoders.get("hashing:16"))
    assert encoders.get("letters").dim == 16


def test_a_package_that_is_gone_is_named_by_the_collection(site: Site, tmp_path: Path) -> None:
    site.install("tiny-letters", "[vecdb.encoders]\nletters = tiny_letters:Letters\n")
    path = tmp_path / "c.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", encoder="letters").add(1, texts="aaa")
    for each in site.folder.iterdir():
        each.rename(tmp_path / each.name)
    registry._made.clear()
    with vecdb.open(path) as db:
        with pytest.raises(EncoderMismatch, match="letters:3"):
            db["c"].search("a")
        assert db["c"].search([4, 1, 1], k=1).ids == [1] and db["c"][1].text == "aaa"
