"""Files are written wholly or not at all (faults 73, 76, 77, 83), and JSON reads back as it was."""

import errno
import json
import math
import os
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from pmt import files
from pmt.errors import RequestError
from pmt.files import (
    as_json,
    prepare_output_directory,
    remove_leftovers,
    require_writable_file,
    write_atomically,
    write_json,
)


class TestWriteAtomically:
    @pytest.mark.parametrize(
        "content", [b"\x00\xff", "grüße\r\n", lambda file: file.write(b"by hand")]
    )
    def test_what_is_written_is_there_and_nothing_else(self, tmp_path, content):
        target = tmp_path / "größe α.bin"
        assert write_atomically(target, content) == target
        expected = {bytes: content, str: "grüße\r\n".encode()}.get(type(content), b"by hand")
        assert target.read_bytes() == expected
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError, SystemExit])
    def test_a_failure_leaves_the_old_file(self, tmp_path, error):
        target = tmp_path / "a"
        target.write_text("old")

        def content(file):
            file.write(b"half")
            raise error

        with pytest.raises(error):
            write_atomically(target, content)
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_leaves_nothing_and_names_the_target(self, tmp_path, monkeypatch, call):
        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, arguments[:1]))

        monkeypatch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left") as caught:
            write_atomically(tmp_path / "a", b"x")
        if call == "replace":
            assert caught.value.filename == str(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_a_device_that_is_full_says_so_and_stays_a_device(self):
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            write_atomically("/dev/full", b"x" * 100_000)
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)

    def test_an_error_about_another_file_keeps_its_name(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="font"):
            write_atomically(tmp_path / "a", lambda _: open(tmp_path / "font"))

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "there").write_text("old")
        (tmp_path / "link").symlink_to(tmp_path / "there")
        write_atomically(tmp_path / "link", "new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there").read_text() == "new"

    def test_the_mode_is_what_open_would_give(self, tmp_path):
        before = os.umask(0o027)
        try:
            write_atomically(tmp_path / "a", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640

    def test_a_name_as_long_as_the_system_allows(self, tmp_path):
        target = tmp_path / ("n" * 255)
        write_atomically(target, "x")
        assert target.read_text() == "x"

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(RequestError, match="it is a folder"):
            write_atomically(tmp_path, "x")

    def test_a_missing_folder_is_an_error_about_the_target(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            write_atomically(tmp_path / "no" / "a", "x")
        assert caught.value.filename == str(tmp_path / "no" / "a")

    def test_a_pipe_is_written_to(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write_atomically(pipe, "through")
        assert os.read(reader, 100) == b"through"
        os.close(reader)


class Colour(StrEnum):
    RED = "red"


@dataclass
class Result:
    value: float
    parts: tuple[int, ...]


def bits(value):
    return struct.pack("d", value)


class TestJson:
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_every_finite_number_reads_back_bit_for_bit(self, value):
        assert bits(json.loads(json.dumps(as_json(value)))) == bits(value)
        assert bits(json.loads(json.dumps(as_json(np.float64(value))))) == bits(value)

    @given(st.floats(width=32, allow_nan=False, allow_infinity=False))
    def test_single_precision_too(self, value):
        back = np.float32(json.loads(json.dumps(as_json(np.float32(value)))))
        assert back.tobytes() == np.float32(value).tobytes()

    def test_the_types_that_results_hold(self, tmp_path):
        value = {
            "array": np.arange(6.0).reshape(2, 3),
            "device": jnp.arange(3),
            "flag": np.bool_(True),
            "half": jnp.bfloat16(1.5),
            "complex": np.array([1 + 2j]),
            "result": Result(0.1, (1, 2)),
            "colour": Colour.RED,
            "path": Path("größe"),
            "nothing": None,
            "text": "α",
        }
        write_json(tmp_path / "a.json", value)
        text = (tmp_path / "a.json").read_text(encoding="utf-8")
        assert "α" in text
        assert json.loads(text) == {
            "array": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
            "device": [0, 1, 2],
            "flag": True,
            "half": 1.5,
            "complex": [[1.0, 2.0]],
            "result": {"value": 0.1, "parts": [1, 2]},
            "colour": "red",
            "path": "größe",
            "nothing": None,
            "text": "α",
        }

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
    def test_what_is_not_finite_is_refused_with_its_place(self, tmp_path, bad):
        with pytest.raises(ValueError, match=r"the number at \$\.layers\[1\]\.gap is"):
            write_json(tmp_path / "a", {"layers": [{"gap": 1.0}, {"gap": bad}]})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("bad", [b"bytes", object(), {1, 2}, {3: "key"}])
    def test_what_json_cannot_hold_is_refused_with_its_place(self, bad):
        with pytest.raises(TypeError, match=r"at \$\.a is a .*(cannot hold|only text)"):
            as_json({"a": bad})

    def test_a_path_that_is_no_text_is_written_all_the_same(self, tmp_path):
        odd = os.fsdecode(b"caf\xe9")
        write_json(tmp_path / "a.json", {"path": odd})
        assert json.loads((tmp_path / "a.json").read_text()) == {"path": odd}


class TestPrepareOutputDirectory:
    def test_a_new_folder_is_made_with_its_parents(self, tmp_path):
        folder = prepare_output_directory(tmp_path / "größe" / "b", writer="pmt report")
        assert folder.is_dir()

    def test_the_same_command_may_be_repeated(self, tmp_path):
        for _ in range(2):
            prepare_output_directory(tmp_path / "a", writer="pmt report")
            (tmp_path / "a" / "index.html").write_text("page")
        assert (tmp_path / "a" / "index.html").read_text() == "page"

    def test_files_of_somebody_else_are_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years")
        with pytest.raises(RequestError, match="'pmt report' did not write.*--overwrite"):
            prepare_output_directory(tmp_path, writer="pmt report")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_files_of_another_command_are_somebody_elses(self, tmp_path):
        prepare_output_directory(tmp_path, writer="pmt simulate")
        (tmp_path / "path.png").write_bytes(b"")
        with pytest.raises(RequestError, match="did not write"):
            prepare_output_directory(tmp_path, writer="pmt report")

    @pytest.mark.parametrize("marker", ["", "[]", "{}", '{"writer": 3}', "null"])
    def test_a_marker_that_says_nothing_is_none(self, tmp_path, marker):
        (tmp_path / files._MARKER).write_text(marker)
        with pytest.raises(RequestError, match="did not write"):
            prepare_output_directory(tmp_path, writer="pmt report")

    def test_overwriting_deletes_nothing(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years")
        prepare_output_directory(tmp_path, writer="pmt report", overwrite=True)
        assert (tmp_path / "thesis.tex").read_text() == "years"
        prepare_output_directory(tmp_path, writer="pmt report")

    @pytest.mark.parametrize("inside", [".", "below"])
    def test_a_file_in_the_way(self, tmp_path, inside):
        (tmp_path / "a").write_text("file")
        with pytest.raises(RequestError, match="there is a file in its way"):
            prepare_output_directory(tmp_path / "a" / inside, writer="pmt report")

    def test_a_place_that_cannot_be_written_to(self):
        with pytest.raises(RequestError, match="cannot write to the folder /proc/nowhere: "):
            prepare_output_directory("/proc/nowhere", writer="pmt report")


class TestRequireWritableFile:
    def test_a_file_that_can_be_written_is_not_touched(self, tmp_path):
        old = tmp_path / "old"
        old.write_text("old")
        assert require_writable_file(old) == old
        assert require_writable_file(tmp_path / "new") == tmp_path / "new"
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
        assert old.read_text() == "old"

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            (".", "it is a folder"),
            ("no/such/folder/a", "there is no folder"),
            ("/proc/a", "cannot write /proc/a: "),
        ],
    )
    def test_what_cannot_be_written_is_refused(self, tmp_path, monkeypatch, path, reason):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RequestError, match=reason):
            require_writable_file(path)

    def test_standard_output_may_be_a_file(self):
        assert require_writable_file("/dev/stdout") == Path("/dev/stdout")

    def test_another_process_may_clear_the_folder_meanwhile(self, tmp_path, monkeypatch):
        close = os.close

        def cleared(descriptor):
            close(descriptor)
            assert remove_leftovers(tmp_path) == 1

        monkeypatch.setattr(os, "close", cleared)
        assert require_writable_file(tmp_path / "a") == tmp_path / "a"


SLOW = """
import sys, time
from pmt.files import write_atomically
def content(file):
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    time.sleep(600)
write_atomically(sys.argv[1], content)
"""


def test_fault_74_what_a_killed_process_was_writing_is_removed_and_no_other(tmp_path):
    """While its writer lives a file is left alone, however long it takes."""
    (tmp_path / "below").mkdir()
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path / "below" / "a"], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout.readline() == b"writing\n"
        (half,) = (tmp_path / "below").iterdir()
        os.utime(half, (0, 0))
        assert remove_leftovers(tmp_path) == 0
        assert half.exists()
    finally:
        writer.kill()
        writer.communicate()
    (tmp_path / "below" / "other").write_text("kept")
    assert remove_leftovers(tmp_path, below=False) == 0
    assert remove_leftovers(tmp_path) == 1
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["other"]
    assert remove_leftovers(tmp_path / "nothing") == 0


def test_without_locks_files_of_the_last_hour_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_lock", lambda descriptor: None)
    old, new = (tmp_path / f"{files.TEMPORARY_START}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    assert remove_leftovers(tmp_path) == 1 and list(tmp_path.iterdir()) == [new]
    assert write_atomically(tmp_path / "a", "x").read_text() == "x"


def test_a_file_that_was_taken_for_a_leftover_before_it_was_locked_is_written_again(
    tmp_path, monkeypatch
):
    lock, calls = files._lock, []

    def late(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            for path in tmp_path.iterdir():
                path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(files, "_lock", late)
    assert write_atomically(tmp_path / "a", "x").read_text() == "x"
    assert len(calls) == 2 and [path.name for path in tmp_path.iterdir()] == ["a"]
