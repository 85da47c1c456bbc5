"""Whatever goes wrong with the Hub ends in one sentence that says how to go on."""

import errno
import os
import shutil
import time

import pytest

from pmt.checkpoints import locate
from pmt.checkpoints.hub_errors import explain
from pmt.errors import RequestError


def refused(name, **settings):
    """The one sentence that a call ends in."""
    with pytest.raises(RequestError) as caught:
        locate(name, **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def says(sentence, *parts):
    missing = [part for part in parts if part not in sentence]
    assert not missing, f"{missing} not in {sentence!r}"


@pytest.fixture
def quick(monkeypatch):
    """The library waits between its attempts; the tests do not."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def half(snapshot):
    """The cache as an interrupted call leaves it: the config is there, the weights are not."""
    (snapshot / "model.safetensors").unlink()


def test_a_model_that_there_is_not(hub):
    says(
        refused("owner/none"),
        "there is no directory 'owner/none'",
        "no model of that name",
        "check the name, or give a token",
    )


def test_a_private_model_without_its_token(hub, files):
    hub.add("owner/private", files, token="hf_right")
    says(refused("owner/private"), "give a token (token=..., HF_TOKEN, or 'hf auth login')")
    says(refused("owner/private", token="hf_wrong"), "if it is private")


def test_a_token_is_not_repeated(hub, files):
    hub.add("owner/tiny", files)
    sentence = refused("owner/tiny", token="hf_secret\n")
    says(sentence, "the token holds characters that no token has")
    assert "secret" not in sentence


def test_a_saved_token_that_there_is_not(hub, files):
    hub.add("owner/tiny", files)
    says(refused("owner/tiny", token=True), "there is none; give a token")


def test_fault_25_unknown_revision(hub, files):
    hub.add("owner/tiny", files)
    for revision in ("v9", "0" * 40):
        says(
            refused("owner/tiny", revision=revision),
            f"owner/tiny has no revision {revision!r}",
            "/owner/tiny/tree/main",
        )


@pytest.mark.parametrize("revision", ["", "../main", "a//b", "a\\b", "a\nb", "/a"])
def test_fault_25_a_revision_that_none_can_be(hub, cache, revision):
    says(refused("owner/tiny", revision=revision), "is no name of a branch, a tag or a commit")
    assert hub.requests == []
    assert not cache.exists()


def test_fault_26_gated_repository(hub, files):
    hub.add("owner/gated", files, token="hf_right", gated=True)
    says(
        refused("owner/gated"),
        "owner/gated is gated: accept its terms at http://127.0.0.1",
        "then give a token",
    )
    assert locate("owner/gated", token="hf_right").name == "owner/gated"


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE", "no network"])
def test_fault_27_offline_with_a_cold_cache(hub, monkeypatch, how):
    settings = {}
    if how == "local_files_only":
        settings["local_files_only"] = True
    elif how == "HF_HUB_OFFLINE":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    says(
        refused("owner/tiny", **settings),
        "no files of a model of that name at main",
        f"{how} is set" if how != "no network" else "http://127.0.0.1:9 cannot be reached (",
        "call it once with the Hub in reach, or give the cache_dir that holds it",
    )
    assert hub.requests == []


@pytest.mark.parametrize("how", ["local_files_only", "no network"])
def test_fault_27_offline_with_a_partial_cache(hub, files, monkeypatch, how):
    hub.add("owner/tiny", files)
    half(locate("owner/tiny").directory)
    if how == "no network":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    says(
        refused("owner/tiny", local_files_only=how == "local_files_only"),
        "only a part of owner/tiny at main (model.safetensors missing)",
        "call it once with the Hub in reach",
    )


def test_fault_27_offline_without_one_of_the_shards(hub, sharded_files):
    hub.add("owner/big", sharded_files)
    (locate("owner/big").directory / "model-00002-of-00002.safetensors").unlink()
    says(refused("owner/big", local_files_only=True), "(model-00002-of-00002.safetensors missing)")
    # With the Hub in reach, the missing one is put back from its blob.
    assert len(locate("owner/big").weights) == 2


def test_fault_27_a_reference_that_is_none(hub, files, cache):
    """A damaged cache is no complete one."""
    hub.add("owner/tiny", files)
    locate("owner/tiny")
    (cache / "models--owner--tiny" / "refs" / "main").write_text("../../elsewhere")
    says(refused("owner/tiny", local_files_only=True), "no files of a model of that name at main")


def test_fault_24_only_a_pickle_on_the_hub(hub, files):
    held = {name: files[name] for name in ("config.json", "pytorch_model.bin")}
    hub.add("owner/old", held)
    says(refused("owner/old"), "only as a pickle (pytorch_model.bin)", "convert it")
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("held", "part"),
    [(["README.md", "model.safetensors"], "no config.json"), (["config.json"], "no model.safe")],
)
def test_a_repository_that_is_no_model(hub, files, held, part):
    hub.add("owner/other", {name: files[name] for name in held})
    says(refused("owner/other"), part)
    assert hub.fetched() == []


def test_fault_18_the_index_names_a_shard_that_the_hub_has_not(hub, sharded_files):
    del sharded_files["model-00001-of-00002.safetensors"]
    hub.add("owner/big", sharded_files)
    says(refused("owner/big"), "lacks files", ": model-00001-of-00002.safetensors;")
    assert hub.fetched() == ["model.safetensors.index.json"]


def test_fault_22_the_index_names_a_path_on_the_hub(hub, sharded_files):
    bad = b'{"weight_map": {"a": "../../../etc/model.safetensors"}}'
    hub.add("owner/big", sharded_files | {"model.safetensors.index.json": bad})
    says(refused("owner/big"), "only plain names")


def test_fault_28_a_cache_that_cannot_be_written_to(hub, files, tmp_path):
    hub.add("owner/tiny", files)
    (tmp_path / "file").write_text("")
    says(
        refused("owner/tiny", cache_dir=tmp_path / "file" / "cache"),
        f"cannot write to the cache {tmp_path}/file/cache (Not a directory)",
        "give a cache_dir, or set HF_HUB_CACHE",
    )


def test_fault_28_a_read_only_file_system(hub, files, monkeypatch):
    hub.add("owner/tiny", files)

    def refuse(*arguments, **settings):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("huggingface_hub.file_download.os.makedirs", refuse)
    says(refused("owner/tiny"), "cannot write to the cache", "(Read-only file system)")


def test_fault_73_too_little_space_is_noticed_before_fetching(hub, files, cache, monkeypatch):
    hub.add("owner/tiny", files)
    nearly_full = shutil._ntuple_diskusage(10**6, 10**6 - 100, 100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: nearly_full)
    says(refused("owner/tiny"), "has 100 B left; free some space, or give a cache_dir")
    assert hub.fetched() == []
    assert not cache.exists()


def test_fault_73_a_disk_that_fills_up_while_fetching(hub, files, cache, monkeypatch):
    hub.add("owner/tiny", files)

    def fill_up(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fill_up)
    says(refused("owner/tiny"), f"the disk of the cache {cache} is full; free some space")
    monkeypatch.undo()
    says(refused("owner/tiny", cache_dir=cache, local_files_only=True), "no files of a model")


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (401, "refuses access to owner/tiny (status 401)"),
        (403, "refuses access to owner/tiny (status 403)"),
        (404, "does not know owner/tiny (status 404)"),
        (400, "refused to give owner/tiny (status 400)"),
        (429, "cannot be reached (status 429)"),
        (500, "cannot be reached (status 500)"),
        (503, "cannot be reached (status 503)"),
    ],
)
def test_a_hub_that_refuses_or_fails(hub, status, part):
    hub.answer = (status, b"<html>no</html>")
    says(refused("owner/tiny"), part)


@pytest.mark.parametrize(
    "body",
    [b"<html>log in to the hotel</html>", b"[]", b"{}", b'{"id": "x", "sha": "main"}', b""],
    ids=["html", "list", "empty object", "no commit", "nothing"],
)
def test_an_answer_that_is_no_hubs(hub, body):
    hub.answer = (200, body)
    says(refused("owner/tiny"), "did not answer as the Hugging Face Hub does", "HF_ENDPOINT")


def test_a_hub_that_never_answers(hub, files, monkeypatch):
    import socket

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        start = time.monotonic()
        says(refused("owner/tiny"), "cannot be reached (timed out)")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("endpoint", ["huggingface.co", "http://[", "ftp://a", "http://"])
def test_an_endpoint_that_is_no_address(hub, monkeypatch, endpoint):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    says(refused("owner/tiny"), f"HF_ENDPOINT is {endpoint!r}", "https://huggingface.co")


def test_a_hub_that_fails_between_the_question_and_the_files(hub, files, quick, monkeypatch):
    import huggingface_hub

    hub.add("owner/tiny", files)
    download = huggingface_hub.hf_hub_download

    def fail(*arguments, **settings):
        hub.answer = (503, b"")
        return download(*arguments, **settings)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    says(refused("owner/tiny"), "fetching owner/tiny from", "failed (", "try again")


@pytest.mark.parametrize(
    "content", [lambda sound: sound[:-1], lambda sound: b"\xff" + sound[1:]], ids=["cut", "flipped"]
)
def test_fault_14_content_that_arrives_damaged_is_not_kept(hub, files, quick, content):
    hub.add("owner/tiny", files)
    hub.content["model.safetensors"] = content(files["model.safetensors"])
    says(refused("owner/tiny"), "try again")
    hub.content.clear()
    assert locate("owner/tiny").weights[0].read_bytes() == files["model.safetensors"]


@pytest.mark.parametrize(
    "error", [RuntimeError("Data processing error: CAS\nlong story"), OSError("no number")]
)
def test_an_error_of_the_library_that_has_no_name(tmp_path, error):
    sentence = str(explain(error, "owner/tiny", None, tmp_path))
    says(sentence, "fetching owner/tiny from", "; try again")
    assert "\n" not in sentence


@pytest.mark.parametrize("what", ["minilm", "a directory"])
def test_a_revision_of_what_has_none(directory, what):
    name = "minilm" if what == "minilm" else str(directory)
    says(refused(name, revision="main"), "the revision 'main' was given for", "leave it out")
    # What else is for the Hub has no effect.
    found = locate(name, cache_dir="nowhere", local_files_only=True, token="x", notify=print)
    assert found.name == name
